//! What a `.env` file does to the environment. A program of its own with one test, because an
//! environment may only be changed while nothing else reads it.

use service::cli::settings::load_file;

#[test]
fn a_file_adds_to_the_environment_and_never_overrides_it() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "# settings\nPATH=/nowhere\nSERVICE_ENV_FILE='a b # c'\n")
        .expect("a writable file");
    let path = std::env::var_os("PATH");
    load_file(file.path()).expect("a well-formed file");
    assert_eq!(std::env::var("SERVICE_ENV_FILE").as_deref(), Ok("a b # c"));
    assert_eq!(std::env::var_os("PATH"), path);
}
