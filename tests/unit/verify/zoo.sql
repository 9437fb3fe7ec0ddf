-- One of everything that a healthy database may hold, for the checks to stay silent about.
-- A statement ends where a line does, with a semicolon.
CREATE SCHEMA zoo;
SET search_path = zoo, public;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'select $1 * 2';
CREATE TABLE animals (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, legs positive, mood mood DEFAULT 'ok',
  born date, doubled int GENERATED ALWAYS AS (legs * 2) STORED, tags text[], place point, body jsonb, p pair, gone int,
  EXCLUDE USING gist (place WITH ~=));
ALTER TABLE animals DROP COLUMN gone;
CREATE INDEX ON animals (lower(name));
CREATE INDEX ON animals (twice(legs));
CREATE INDEX ON animals (born) WHERE mood = 'sad';
CREATE UNIQUE INDEX ON animals (id) INCLUDE (name, legs);
CREATE INDEX ON animals USING gin (tags);
CREATE INDEX ON animals USING gin (body jsonb_path_ops);
CREATE INDEX ON animals USING gist (place);
CREATE INDEX ON animals USING brin (born);
CREATE INDEX ON animals USING hash (name);
CREATE INDEX ON animals USING spgist (place);
INSERT INTO animals (name, legs, mood, born, tags, place, body, p)
  SELECT 'animal ' || n, n % 8 + 1, (ARRAY['sad','ok','happy'])[n % 3 + 1]::mood, date '2020-01-01' + n,
         ARRAY['t' || n % 10, 'u' || n], point(n, n), jsonb_build_object('n', n, 'long', repeat(md5(n::text), CASE WHEN n % 50 = 0 THEN 400 ELSE 1 END)), ROW(n, 'x')::pair
    FROM generate_series(1, 2000) n;
ALTER TABLE animals ADD COLUMN later int DEFAULT 7;
UPDATE animals SET legs = legs + 1 WHERE id % 7 = 0;
DELETE FROM animals WHERE id % 11 = 0;
CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY, body text);
INSERT INTO volatile SELECT n, repeat('v', 3000) FROM generate_series(1, 500) n;
CREATE TABLE parted (id int, at date, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY HASH (id);
CREATE TABLE parted_2a PARTITION OF parted_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_2b PARTITION OF parted_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON parted (note);
INSERT INTO parted SELECT n, date '2020-01-01' + n % 700, 'note' || n FROM generate_series(1, 1000) n;
CREATE TABLE parent (id serial PRIMARY KEY, v int CHECK (v < 1000000));
CREATE TABLE child (extra text) INHERITS (parent);
CREATE TABLE refers (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE);
CREATE MATERIALIZED VIEW summary AS SELECT legs, count(*) FROM animals GROUP BY legs;
CREATE UNIQUE INDEX ON summary (legs);
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
CREATE VIEW seen AS SELECT * FROM animals WHERE mood = 'sad';
CREATE RULE no_insert AS ON INSERT TO seen DO INSTEAD NOTHING;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'begin return new; end';
CREATE TRIGGER t BEFORE UPDATE ON animals FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE animals ENABLE ROW LEVEL SECURITY;
CREATE POLICY nobody ON animals USING (false);
CREATE TABLE nothing ();
CREATE TABLE empty (id int PRIMARY KEY, t text);
CREATE TABLE "Odd ""name'" (id int PRIMARY KEY, "Col %s" text);
INSERT INTO "Odd ""name'" SELECT n, 'x' FROM generate_series(1, 100) n;
CREATE SEQUENCE counter;
SELECT nextval('counter');
CREATE STATISTICS stat ON legs, mood FROM animals;
SELECT lo_from_bytea(0, decode(repeat(md5('x'), 300), 'hex')) FROM generate_series(1, 3);
SELECT lo_create(0);
CREATE FOREIGN DATA WRAPPER dummy;
CREATE SERVER far FOREIGN DATA WRAPPER dummy;
CREATE FOREIGN TABLE far_away (id int, t text) SERVER far;
CREATE COLLATION odd (provider = libc, locale = 'C');
CREATE TABLE collated (t text COLLATE odd PRIMARY KEY, u text COLLATE "C" UNIQUE);
CREATE AGGREGATE total (int) (sfunc = int4pl, stype = int, initcond = '0');
CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq);
CREATE TYPE span AS RANGE (subtype = int);
CREATE PUBLICATION pub FOR TABLE parent;
CREATE TABLE rewritten AS SELECT n AS id, 'x' AS t FROM generate_series(1, 5000) n;
ALTER TABLE rewritten ADD PRIMARY KEY (id);
VACUUM FULL rewritten;
CLUSTER rewritten USING rewritten_pkey;
DELETE FROM rewritten WHERE id > 200;
VACUUM rewritten;
CREATE TABLE cut AS SELECT n AS id FROM generate_series(1, 100) n;
TRUNCATE cut;
