-- A schema with everything that stands in the way of plain INSERTs; run by the database's owner, in one transaction.

-- Keys: the referring table's name comes first everywhere, so that an order by names would fail.

CREATE TABLE zz_parents (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE a_children (id integer PRIMARY KEY, parent integer NOT NULL REFERENCES zz_parents);
INSERT INTO zz_parents SELECT n, 'parent ' || n FROM generate_series(1, 250) AS n;
INSERT INTO a_children SELECT n, 1 + n % 250 FROM generate_series(1, 301) AS n;

CREATE TABLE chickens (id integer PRIMARY KEY, egg integer NOT NULL);
CREATE TABLE eggs (id integer PRIMARY KEY, chicken integer NOT NULL);
INSERT INTO chickens VALUES (1, 1), (2, 2);
INSERT INTO eggs VALUES (2, 1), (1, 2);
ALTER TABLE chickens ADD CONSTRAINT "from an egg" FOREIGN KEY (egg) REFERENCES eggs ON UPDATE CASCADE;
ALTER TABLE eggs ADD CONSTRAINT laid FOREIGN KEY (chicken) REFERENCES chickens;
COMMENT ON CONSTRAINT laid ON eggs IS 'Which came first?';

CREATE TABLE staff (id integer PRIMARY KEY, boss integer REFERENCES staff);
-- The child lies before its parent: 300 rows are more than one INSERT.
INSERT INTO staff SELECT n, NULL FROM generate_series(0, 300) AS n;
UPDATE staff SET boss = id + 1 WHERE id < 300;
DELETE FROM staff WHERE id = 0;

CREATE TABLE b_uses_parts (id integer PRIMARY KEY, part integer NOT NULL);
CREATE TABLE parts (id integer PRIMARY KEY, kind integer NOT NULL) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
CREATE TABLE parts_2_low PARTITION OF parts_2 FOR VALUES FROM (100) TO (150);
CREATE TABLE parts_2_high PARTITION OF parts_2 DEFAULT;
CREATE TABLE z_kinds (id integer PRIMARY KEY);
INSERT INTO z_kinds VALUES (1), (2);
INSERT INTO parts SELECT n, 1 + n % 2 FROM generate_series(1, 199) AS n;
INSERT INTO b_uses_parts SELECT n, n FROM generate_series(1, 150, 7) AS n;
ALTER TABLE parts ADD FOREIGN KEY (kind) REFERENCES z_kinds;
ALTER TABLE b_uses_parts ADD FOREIGN KEY (part) REFERENCES parts;

CREATE TABLE orphans (id integer PRIMARY KEY, parent integer);
INSERT INTO orphans VALUES (1, 1), (2, 999999);
ALTER TABLE orphans ADD FOREIGN KEY (parent) REFERENCES zz_parents NOT VALID;

CREATE TABLE late (id integer PRIMARY KEY, parent integer REFERENCES zz_parents DEFERRABLE INITIALLY DEFERRED);
INSERT INTO late VALUES (1, 1), (2, NULL);

-- Triggers and rules, in every state.

CREATE TABLE noise (what text NOT NULL);
CREATE TABLE watched (id integer PRIMARY KEY, body text);
INSERT INTO noise VALUES ('one line that was there');
INSERT INTO watched VALUES (1, 'as it was'), (2, NULL);
CREATE FUNCTION make_noise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.noise VALUES (TG_NAME || ' on ' || TG_TABLE_NAME || ' for ' || TG_OP);
    RETURN NULL;
END
$$;
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.body := 'spoiled';
    RETURN NEW;
END
$$;
CREATE TRIGGER spoiling BEFORE INSERT OR UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION spoil();
CREATE TRIGGER noisy AFTER INSERT ON watched FOR EACH STATEMENT EXECUTE FUNCTION make_noise();
CREATE TRIGGER "Always noisy" AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION make_noise();
CREATE TRIGGER emptied AFTER TRUNCATE ON watched FOR EACH STATEMENT EXECUTE FUNCTION make_noise();
CREATE TRIGGER of_replicas AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION make_noise();
CREATE TRIGGER switched_off AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION make_noise();
ALTER TABLE watched ENABLE ALWAYS TRIGGER "Always noisy";
ALTER TABLE watched ENABLE REPLICA TRIGGER of_replicas;
ALTER TABLE watched DISABLE TRIGGER switched_off;
CREATE TRIGGER late_noise AFTER INSERT ON late FOR EACH ROW EXECUTE FUNCTION make_noise();
CREATE CONSTRAINT TRIGGER later_noise AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION make_noise();
CREATE TRIGGER parts_noise AFTER INSERT ON parts FOR EACH ROW EXECUTE FUNCTION make_noise();
ALTER TABLE parts_2_low DISABLE TRIGGER parts_noise;
ALTER TABLE parts_1 ENABLE ALWAYS TRIGGER parts_noise;

CREATE TABLE ruled (id integer PRIMARY KEY);
INSERT INTO ruled VALUES (1), (2);
CREATE RULE swallow AS ON INSERT TO ruled DO INSTEAD NOTHING;
CREATE RULE "always too" AS ON INSERT TO ruled WHERE NEW.id > 1 DO ALSO INSERT INTO noise VALUES ('a rule');
ALTER TABLE ruled ENABLE ALWAYS RULE "always too";
CREATE RULE switched_off AS ON INSERT TO ruled DO ALSO INSERT INTO noise VALUES ('a rule that is off');
ALTER TABLE ruled DISABLE RULE switched_off;

CREATE TABLE guarded (id integer PRIMARY KEY, secret text);
INSERT INTO guarded VALUES (1, 'mine');
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON guarded USING (false);

-- Values of many types, and texts that look like what pg_dump writes.

CREATE TYPE mood AS ENUM ('so-so', 'it''s "fine"');
CREATE TYPE pair AS (word text, number integer);
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0 OR VALUE = 'NaN');
CREATE TABLE "Odd ""Values""; --" (
    id integer GENERATED ALWAYS AS IDENTITY (START 1000 INCREMENT 10) PRIMARY KEY,
    "select" bigint GENERATED BY DEFAULT AS IDENTITY,
    doubled text GENERATED ALWAYS AS (words || words) STORED,
    words text,
    mood mood,
    pair pair,
    pairs pair[],
    positive positive,
    real double precision,
    day date,
    moment timestamptz,
    span interval,
    flags bit varying,
    bytes bytea,
    json json,
    jsonb jsonb,
    address inet,
    range int4range,
    matrix integer[][],
    amount money
);
INSERT INTO "Odd ""Values""; --" (words, mood, pair, pairs, positive, real, day, moment, span, flags, bytes, json, jsonb,
                                  address, range, matrix, amount) VALUES
    ('plain', 'so-so', '(a,1)', '{"(b,2)",NULL}', 1.50, 0.1, '2026-11-22', '2026-11-22 08:15:00.123456+01',
     '1 year -2 days +03:00:00', '10110', '\x00ff27', '{"a" :  1}', '{"a": [1, null]}', '10.0.0.1/8', '[1,5)',
     '{{1,2},{3,4}}', '1234.56'),
    ('', 'it''s "fine"', NULL, '{}', 'NaN', 'NaN', 'infinity', '-infinity', '-1 day', '', '', 'null', 'null', '::1', 'empty',
     '{}', NULL),
    (NULL, NULL, NULL, NULL, 1e100, '-Infinity', '0044-03-15 BC', 'infinity', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     '-1'),
    (E'SET search_path = nowhere;\nSELECT pg_catalog.set_config(''search_path'', '''', false);\n\\restrict x\n-- Dumped by\n',
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (E'\\.\n\\! echo no\nCOPY x FROM stdin;\n''); DROP TABLE noise; --\n:words :''words'' $1 $$ %s {}\t\b\\x41 ✓ \u00e9\r\n',
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE "new
line" ("a
b" text);
INSERT INTO "new
line" VALUES (E'\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict x\n\n');
CREATE TABLE "CamelCase" ("Id" integer PRIMARY KEY, "camelCase" text);
INSERT INTO "CamelCase" VALUES (1, 'x');
CREATE TABLE only_generated (one integer GENERATED ALWAYS AS (1) STORED);
INSERT INTO only_generated DEFAULT VALUES;
INSERT INTO only_generated DEFAULT VALUES;
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
CREATE UNLOGGED TABLE unlogged (id integer);
INSERT INTO unlogged VALUES (1);
CREATE TABLE animals (name text);
CREATE TABLE birds (wings integer) INHERITS (animals);
INSERT INTO animals VALUES ('ant');
INSERT INTO birds VALUES ('robin', 2);
CREATE TABLE by_mood (mood mood, number integer) PARTITION BY HASH (mood);
CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_mood_1 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO by_mood VALUES ('so-so', 1), ('it''s "fine"', 2);

-- Wide rows, and a table that refers to them: with few rows to an INSERT they come last.
CREATE TABLE wide (id integer PRIMARY KEY, part integer REFERENCES zz_parents, body text, more jsonb);
INSERT INTO wide SELECT n, n, (SELECT string_agg(md5(n::text || m), '') FROM generate_series(1, 300) AS m), '{}'
  FROM generate_series(1, 4) AS n;
CREATE TABLE z_of_wide (id integer PRIMARY KEY REFERENCES wide);
INSERT INTO z_of_wide VALUES (1), (4);

CREATE SEQUENCE alone START 5 INCREMENT 5;
SELECT nextval('alone');
CREATE SEQUENCE never_called MINVALUE 3;

-- Large objects: one of several pieces, one that is empty.

CREATE TABLE attachments (id integer PRIMARY KEY, content oid);
INSERT INTO attachments VALUES (1, lo_from_bytea(0, convert_to(repeat('large object ', 200000), 'UTF8'))), (2, lo_create(0));

CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM zz_parents;
CREATE MATERIALIZED VIEW "Counted again" AS SELECT * FROM counted;

-- What is left out, and what lies elsewhere.

CREATE TABLE _prisma_migrations (id serial PRIMARY KEY, migration_name text NOT NULL);
INSERT INTO _prisma_migrations (migration_name) VALUES ('0001_init'), ('0002_more');
CREATE TABLE migrations (id serial PRIMARY KEY, migration text NOT NULL, batch integer NOT NULL);
INSERT INTO migrations (migration, batch) VALUES ('create_users', 1);
CREATE SCHEMA sales;
CREATE SEQUENCE sales.numbers START 700;
CREATE TABLE sales.fish (fins integer) INHERITS (public.animals);
CREATE TABLE sales.regions (id integer PRIMARY KEY);
CREATE TABLE sales.visits (id integer PRIMARY KEY, staff integer REFERENCES staff);
CREATE TABLE sales.remarks (visit integer REFERENCES sales.visits);
CREATE TABLE sales.migrations (bird text, leaves date);
INSERT INTO sales.regions VALUES (1);
INSERT INTO sales.visits VALUES (1, 1);
INSERT INTO sales.migrations VALUES ('crane', '2026-10-01');
CREATE TABLE shops (id integer PRIMARY KEY DEFAULT nextval('sales.numbers'), region integer REFERENCES sales.regions);
INSERT INTO shops (region) VALUES (1), (1);
CREATE FOREIGN TABLE far (id integer) SERVER elsewhere;
CREATE TABLE mixed (id integer) PARTITION BY LIST (id);
CREATE TABLE mixed_near PARTITION OF mixed FOR VALUES IN (1);
CREATE FOREIGN TABLE mixed_far PARTITION OF mixed FOR VALUES IN (2) SERVER elsewhere;
INSERT INTO mixed VALUES (1);
