-- Many features of PostgreSQL, as many of its resource managers' kinds of WAL as there are ways to
-- ask for them, for PostgreSQL 15 to 18. Run by psql, statement by statement: see
-- test_scenarios_features.py. What it makes is to be the same on a standby.

\set ON_ERROR_STOP on
SET client_min_messages = warning;

-- Types, and tables with every kind of column.
CREATE SCHEMA s;
CREATE TYPE s.mood AS ENUM ('sad', 'fine');
ALTER TYPE s.mood ADD VALUE 'glad';
CREATE TYPE s.pair AS (a int, b text);
CREATE TYPE s.span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN s.positive AS int CHECK (VALUE > 0);
CREATE COLLATION s.plain (provider = libc, locale = 'C');
CREATE TABLE s.kinds (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mood s.mood DEFAULT 'fine',
    pair s.pair,
    number s.positive,
    twice int GENERATED ALWAYS AS (number * 2) STORED,
    word text COLLATE s.plain,
    words text[],
    document jsonb,
    markup xml,
    period tstzrange,
    periods int4multirange,
    span s.span,
    place point,
    address inet,
    bits bit varying(64),
    raw bytea,
    amount numeric(20, 5),
    search tsvector,
    key uuid
);
INSERT INTO s.kinds (pair, number, word, words, document, period, periods, span, place, address,
                     bits, raw, amount, search, key)
SELECT ROW(n, 'b' || n)::s.pair, n, 'word ' || n, ARRAY['x', n::text], jsonb_build_object('n', n),
       tstzrange('2026-01-01', '2026-01-01'::timestamptz + n * interval '1 hour'),
       int4multirange(int4range(n, n + 5), int4range(n + 10, n + 20)), s.span(n, n + 1),
       point(n % 100, n), ('10.0.' || n % 256 || '.' || n % 200)::inet, n::bit(32)::varbit,
       decode(md5(n::text), 'hex'), n / 7.0, to_tsvector('simple', 'number ' || n || ' ' || n % 10),
       md5(n::text)::uuid
FROM generate_series(1, 2000) n;

-- Every index method, with their own kinds of maintenance.
CREATE INDEX kinds_btree ON s.kinds (word, number DESC) INCLUDE (amount);
CREATE INDEX kinds_partial ON s.kinds (lower(word)) WHERE number % 2 = 0;
CREATE INDEX kinds_hash ON s.kinds USING hash (key);
CREATE INDEX kinds_gin ON s.kinds USING gin (search, words) WITH (fastupdate = on);
CREATE INDEX kinds_json ON s.kinds USING gin (document jsonb_path_ops);
CREATE INDEX kinds_gist ON s.kinds USING gist (place);
CREATE INDEX kinds_range ON s.kinds USING gist (period, span);
CREATE INDEX kinds_spgist ON s.kinds USING spgist (address);
CREATE INDEX kinds_quad ON s.kinds USING spgist (place);
CREATE INDEX kinds_brin ON s.kinds USING brin (number) WITH (pages_per_range = 2);
CREATE INDEX kinds_bloom ON s.kinds USING brin (key uuid_bloom_ops);
CREATE INDEX CONCURRENTLY kinds_late ON s.kinds (amount);
CREATE UNIQUE INDEX kinds_unique ON s.kinds (number, key) NULLS NOT DISTINCT;
INSERT INTO s.kinds (number, word, search, place, key, address)
SELECT n, repeat('z', n % 50), to_tsvector('simple', 'late ' || n), point(n, -n), md5('k' || n)::uuid,
       ('192.168.' || n % 256 || '.1')::inet
FROM generate_series(3000, 4500) n;
SELECT brin_summarize_new_values('s.kinds_brin');
SELECT gin_clean_pending_list('s.kinds_gin');
DELETE FROM s.kinds WHERE number BETWEEN 500 AND 900 OR number > 4200;
VACUUM (FREEZE, INDEX_CLEANUP on) s.kinds;
UPDATE s.kinds SET word = word || '!', mood = 'glad' WHERE id % 3 = 0;
UPDATE s.kinds SET document = '{"hot": true}' WHERE id % 5 = 0;
REINDEX INDEX CONCURRENTLY s.kinds_btree;
REINDEX TABLE s.kinds;
CLUSTER s.kinds USING kinds_pkey;
ANALYZE s.kinds;
CREATE STATISTICS s.together (ndistinct, dependencies, mcv) ON number, word FROM s.kinds;

-- Constraints.
CREATE EXTENSION btree_gist;
CREATE TABLE s.rooms (
    room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&)
);
INSERT INTO s.rooms SELECT n, tsrange('2026-01-01', '2026-01-02') FROM generate_series(1, 50) n;
CREATE TABLE s.parents (id int PRIMARY KEY, name text UNIQUE);
CREATE TABLE s.children (
    id serial PRIMARY KEY,
    parent int REFERENCES s.parents ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO s.parents SELECT n, 'p' || n FROM generate_series(1, 100) n;
INSERT INTO s.children (parent) SELECT 1 + n % 100 FROM generate_series(1, 1000) n;
DELETE FROM s.parents WHERE id % 10 = 0;
ALTER TABLE s.children ADD CONSTRAINT not_one CHECK (parent <> 1) NOT VALID;
INSERT INTO s.parents VALUES (1, 'again') ON CONFLICT (id) DO UPDATE SET name = excluded.name;
MERGE INTO s.parents p USING (VALUES (2, 'two'), (500, 'new')) v(id, name) ON p.id = v.id
    WHEN MATCHED THEN UPDATE SET name = v.name
    WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.name);

-- Partitions and inheritance.
CREATE TABLE s.events (at date NOT NULL, kind text, n int) PARTITION BY RANGE (at);
CREATE TABLE s.events_1 PARTITION OF s.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE s.events_2 PARTITION OF s.events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')
    PARTITION BY LIST (kind);
CREATE TABLE s.events_2a PARTITION OF s.events_2 FOR VALUES IN ('a');
CREATE TABLE s.events_2x PARTITION OF s.events_2 DEFAULT PARTITION BY HASH (n);
CREATE TABLE s.events_2x0 PARTITION OF s.events_2x FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE s.events_2x1 PARTITION OF s.events_2x FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX events_n ON s.events (n);
INSERT INTO s.events SELECT date '2026-01-01' + n % 59, chr(97 + n % 3), n
FROM generate_series(1, 1000) n;
UPDATE s.events SET at = at + 10 WHERE at < '2026-01-20' AND n % 7 = 0;
ALTER TABLE s.events DETACH PARTITION s.events_1 CONCURRENTLY;
CREATE TABLE s.base (n int);
CREATE TABLE s.derived (more text) INHERITS (s.base);
INSERT INTO s.derived VALUES (1, 'x');

-- Rewrites, truncation, tables that are not logged, and those that no longer are.
CREATE TABLE s.rewritten AS SELECT n, n::text AS word FROM generate_series(1, 1000) n;
ALTER TABLE s.rewritten ALTER n TYPE bigint, ADD filled text DEFAULT 'x', DROP word;
DELETE FROM s.rewritten WHERE n > 100;
VACUUM (TRUNCATE) s.rewritten;
VACUUM FULL s.rewritten;
CREATE TABLE s.emptied AS SELECT n FROM generate_series(1, 1000) n;
TRUNCATE s.emptied RESTART IDENTITY;
INSERT INTO s.emptied VALUES (1);
CREATE UNLOGGED TABLE s.unlogged AS SELECT n FROM generate_series(1, 1000) n;
ALTER TABLE s.unlogged SET LOGGED;
CREATE UNLOGGED TABLE s.stays_unlogged (n int);
CREATE TEMPORARY TABLE passing AS SELECT 1 AS n;
BEGIN;
CREATE TABLE s.frozen (n int);
COPY s.frozen FROM PROGRAM 'seq 1 1000' WITH (FREEZE);
COMMIT;
CREATE TABLE s.dropped AS SELECT n FROM generate_series(1, 1000) n;
DROP TABLE s.dropped;

-- Values out of line, compressed and not; large objects.
CREATE TABLE s.toasted (n int, packed text COMPRESSION lz4, loose text, other text);
ALTER TABLE s.toasted ALTER loose SET STORAGE EXTERNAL;
INSERT INTO s.toasted
SELECT n, repeat('walstream ' || n, 5000), repeat('x' || n, 5000), repeat(md5(n::text), 300)
FROM generate_series(1, 20) n;
UPDATE s.toasted SET packed = packed || 'y' WHERE n % 2 = 0;
SELECT lo_from_bytea(70001, repeat('large', 5000)::bytea);
SELECT lo_put(70001, 10000, 'in the middle');
SELECT lo_from_bytea(70002, 'gone');
SELECT lo_unlink(70002);
COMMENT ON LARGE OBJECT 70001 IS 'kept';

-- Subtransactions, row locks by several transactions, two-phase commit.
BEGIN;
CREATE TABLE s.nested (n int PRIMARY KEY);
SAVEPOINT a;
INSERT INTO s.nested SELECT generate_series(1, 100);
SAVEPOINT b;
INSERT INTO s.nested VALUES (1000);
ROLLBACK TO b;
RELEASE a;
SELECT count(*) FROM (SELECT FROM s.nested FOR KEY SHARE) locked;
SAVEPOINT c;
UPDATE s.nested SET n = n + 10000 WHERE n = 5;
COMMIT;
DO $$
BEGIN
    FOR i IN 1..100 LOOP
        BEGIN
            INSERT INTO s.nested VALUES (20000 + i);
            IF i % 2 = 0 THEN
                RAISE EXCEPTION 'undone';
            END IF;
        EXCEPTION WHEN raise_exception THEN
        END;
    END LOOP;
END
$$;
BEGIN;
SELECT count(*) FROM (SELECT FROM s.nested FOR SHARE) locked;
INSERT INTO s.nested VALUES (30000);
PREPARE TRANSACTION 'kept';
BEGIN;
SELECT count(*) FROM (SELECT FROM s.nested FOR SHARE) locked;
SELECT pg_current_xact_id();
COMMIT;
BEGIN;
INSERT INTO s.nested VALUES (40000);
PREPARE TRANSACTION 'undone';
COMMIT PREPARED 'kept';
ROLLBACK PREPARED 'undone';

-- What is not a table.
CREATE VIEW s.glad AS SELECT * FROM s.kinds WHERE mood = 'glad' WITH CHECK OPTION;
CREATE MATERIALIZED VIEW s.counted AS SELECT n % 10 AS digit, count(*) FROM s.nested GROUP BY 1;
CREATE UNIQUE INDEX ON s.counted (digit);
INSERT INTO s.nested VALUES (50000);
REFRESH MATERIALIZED VIEW CONCURRENTLY s.counted;
REFRESH MATERIALIZED VIEW s.counted;
CREATE SEQUENCE s.counter INCREMENT 3 CACHE 10 CYCLE MAXVALUE 1000;
SELECT nextval('s.counter'), setval('s.counter', 100);
CREATE FUNCTION s.stamp() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN NEW.name := upper(NEW.name); RETURN NEW; END$$;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON s.parents FOR EACH ROW EXECUTE FUNCTION s.stamp();
INSERT INTO s.parents VALUES (600, 'shouted');
CREATE PROCEDURE s.batches() LANGUAGE plpgsql AS
$$BEGIN FOR i IN 1..5 LOOP INSERT INTO s.emptied VALUES (i); COMMIT; END LOOP; END$$;
CALL s.batches();
CREATE RULE no_delete AS ON DELETE TO s.rooms DO INSTEAD NOTHING;
CREATE AGGREGATE s.product(int) (SFUNC = int4mul, STYPE = int, INITCOND = '1');
CREATE CAST (s.pair AS text) WITH INOUT;
CREATE TEXT SEARCH CONFIGURATION s.plain_words (COPY = simple);
CREATE PUBLICATION everything FOR TABLES IN SCHEMA s;
CREATE ROLE reader;
ALTER ROLE reader SET work_mem = '5MB';
GRANT USAGE ON SCHEMA s TO reader;
GRANT SELECT (id, word) ON s.kinds TO reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO reader;
ALTER TABLE s.kinds ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON s.kinds FOR SELECT TO reader USING (number < 100);
COMMENT ON TABLE s.kinds IS 'every kind of column';
CREATE FUNCTION s.seen() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$;
CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION s.seen();
ALTER TABLE s.base RENAME TO renamed;
ALTER TABLE s.renamed ADD extra int;
DROP VIEW s.glad;

-- Databases, both ways to copy one, and tablespaces.
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE elsewhere LOCATION '';
CREATE TABLE s.placed TABLESPACE elsewhere AS SELECT n FROM generate_series(1, 1000) n;
ALTER TABLE s.rewritten SET TABLESPACE elsewhere;
CREATE DATABASE logged STRATEGY wal_log;
CREATE DATABASE copied STRATEGY file_copy;
CREATE DATABASE dropped;
DROP DATABASE dropped;
ALTER DATABASE copied SET TABLESPACE elsewhere;

-- Messages, names, switches, settings.
SELECT pg_logical_emit_message(true, 'test', 'transactional');
SELECT pg_create_restore_point('here');
SELECT pg_export_snapshot();
CHECKPOINT;
SELECT pg_switch_wal();
VACUUM;

-- What a dump of a standby cannot have, and what is logged ahead of its use.
DROP TABLE s.stays_unlogged;
SELECT count(setval(seqrelid, nextval(seqrelid))) FROM pg_sequence;
