-- Tells every producer whose name it must forget: the user's id, or '*' for all of them. The
-- notification goes out with the commit, so whoever hears it and looks finds the new row.
CREATE FUNCTION users_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('users_changed', '*');
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('users_changed', OLD.id::text);
    END IF;
    -- PostgreSQL drops what is the same as an earlier one of the transaction.
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('users_changed', NEW.id::text);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER users_changed AFTER INSERT OR UPDATE OR DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION users_changed();
CREATE TRIGGER users_truncated AFTER TRUNCATE ON users
    FOR EACH STATEMENT EXECUTE FUNCTION users_changed();

-- Also where the rows come from another database by logical replication.
ALTER TABLE users ENABLE ALWAYS TRIGGER users_changed;
ALTER TABLE users ENABLE ALWAYS TRIGGER users_truncated;
