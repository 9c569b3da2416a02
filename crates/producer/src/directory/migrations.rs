//! Migrations of the users table. Without `sqlx::migrate!`, whose macro would build both drivers a
//! second time for the compiler's host.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// Version, description and SQL of each migration.
pub(super) type Migrations = &'static [(i64, &'static str, &'static str)];

pub(super) fn build_migrator(migrations: Migrations) -> Migrator {
    let migrations = migrations.iter().map(|&(version, description, sql)| {
        let (kind, sql) = (MigrationType::Simple, sql.into_sql_str());
        Migration::new(version, description.into(), kind, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}
