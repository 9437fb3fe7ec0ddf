-- One of each kind of object that a database can hold, and values that are hard to move.
create schema warehouse;
create schema "Odd; -- name";
create type warehouse.mood as enum ('glad', 'sad');
create type warehouse.pair as (a integer, b text);
create type warehouse.float_range as range (subtype = float8, subtype_diff = float8mi);
create domain warehouse.positive as integer check (value > 0);
create collation warehouse.german from "POSIX";
create sequence warehouse.counter start 100 increment 7;
select nextval('warehouse.counter'), nextval('warehouse.counter');
create sequence warehouse.untouched;

create table warehouse.values_of_all_kinds (
    id bigint generated always as identity primary key,
    plain integer, small smallint, exact numeric, real_one real, double_one double precision, money_one money,
    words text, fixed character(7), name_one name, bytes bytea, yes boolean, day date, hour time, hour_zone timetz,
    moment timestamp, moment_zone timestamptz, span interval, unique_one uuid, doc json, docb jsonb, markup xml,
    net inet, block cidr, mac macaddr, spot point, shape polygon, bits bit varying, words_of tsvector, asked tsquery,
    numbers integer[], moods warehouse.mood[], mood warehouse.mood, pair warehouse.pair, pairs warehouse.pair[],
    few warehouse.positive, period tstzrange, periods tstzmultirange, floats warehouse.float_range,
    class regclass, type regtype, lsn pg_lsn, large oid, sorted text collate warehouse.german
);
insert into warehouse.values_of_all_kinds
       (plain, small, exact, real_one, double_one, money_one, words, fixed, name_one, bytes, yes, day, hour, hour_zone,
        moment, moment_zone, span, unique_one, doc, docb, markup, net, block, mac, spot, shape, bits, words_of, asked,
        numbers, moods, mood, pair, pairs, few, period, periods, floats, class, type, lsn, large, sorted)
values (2147483647, -32768, 'NaN', 'infinity', 0.1, '12.34', E'tab\tline\nback\\slash \\. \\N ü €', 'ab', 'a name',
        '\x00ff5c6e', true, 'infinity', '23:59:59.999999', '12:00:00+05:30', '-infinity', '2026-01-01 00:00:00+00',
        '1 mon -3 days 04:05:06.7', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a":  1}', '{"b": [1, null, "x"]}', '<a>x</a>',
        '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '(1.5,-2)', '((0,0),(1,1),(1,0))', '10110', 'a:1 b:2', 'a & !b',
        '{1,null,3}', '{glad,sad}', 'sad', '(1,"x, y")', '{"(1,a)","(2,)"}', 7, '[2026-01-01,2026-02-01)',
        '{[2026-01-01,2026-01-02),[2026-03-01,)}', '[0.5,1.5)', 'warehouse.counter', 'warehouse.mood', '16/B374D848', 42, 'ä');
insert into warehouse.values_of_all_kinds (words, fixed, name_one, bytes, numbers) values ('', '', '', '', '{}');
insert into warehouse.values_of_all_kinds (exact, words)
select g / 7.0, repeat(md5(g::text), g % 40) from generate_series(1, 3000) as g;

create table warehouse.no_columns ();
insert into warehouse.no_columns default values;
insert into warehouse.no_columns default values;
create table warehouse.dropped (a integer, gone text, b integer, sum integer generated always as (a + b) stored);
insert into warehouse.dropped values (1, 'x', 2);
alter table warehouse.dropped drop column gone;
insert into warehouse.dropped values (3, 4);

create table warehouse.parent (id integer primary key, note text not null);
create table warehouse.child (extra text) inherits (warehouse.parent);
insert into warehouse.parent values (1, 'of the parent');
insert into warehouse.child values (2, 'of the child', 'x');
create table warehouse.measured (at date not null, value integer, unique (at, value)) partition by range (at);
create table warehouse.measured_a partition of warehouse.measured for values from ('2026-01-01') to ('2026-02-01')
    partition by hash (value);
create table warehouse.measured_a0 partition of warehouse.measured_a for values with (modulus 2, remainder 0);
create table warehouse.measured_a1 partition of warehouse.measured_a for values with (modulus 2, remainder 1);
create index on warehouse.measured (value);
insert into warehouse.measured select '2026-01-01'::date + g % 30, g from generate_series(1, 500) as g;
create table warehouse.refers (at date, value integer, foreign key (at, value) references warehouse.measured (at, value));
insert into warehouse.refers select at, value from warehouse.measured limit 10;

-- The hash of an enum is of its oid: in another cluster the rows belong to other partitions.
create table warehouse.moods (mood warehouse.mood not null, note integer, primary key (mood, note)) partition by hash (mood);
create table warehouse.moods_0 partition of warehouse.moods for values with (modulus 3, remainder 0);
create table warehouse.moods_1 partition of warehouse.moods for values with (modulus 3, remainder 1);
create table warehouse.moods_2 partition of warehouse.moods for values with (modulus 3, remainder 2);
insert into warehouse.moods select (array['glad', 'sad'])[1 + g % 2]::warehouse.mood, g from generate_series(1, 100) as g;

create table warehouse.first_of_circle (id integer primary key, other integer not null);
create table warehouse.second_of_circle (id integer primary key, other integer references warehouse.first_of_circle);
insert into warehouse.first_of_circle values (1, 1);
insert into warehouse.second_of_circle values (1, 1);
alter table warehouse.first_of_circle add foreign key (other) references warehouse.second_of_circle;
alter table warehouse.first_of_circle add constraint unproven check (id > 5) not valid;

create table warehouse.secrets (id integer primary key, owner text, secret text);
insert into warehouse.secrets values (1, 'a', 'x'), (2, 'b', 'y');
alter table warehouse.secrets enable row level security;
alter table warehouse.secrets force row level security;
create policy own on warehouse.secrets using (owner = current_user);

create function warehouse.half(integer) returns integer language sql immutable return $1 / 2;
create function warehouse.dump_inside() returns text language plpgsql as $body$
begin
    return $in$
--
-- TOC entry 999999 (class 1259 OID 1)
-- Name: not_a_table; Type: TABLE; Schema: public; Owner: nobody
--

CREATE TABLE public.not_a_table ();
$in$;
end
$body$;
create aggregate warehouse.total (integer) (sfunc = int4pl, stype = integer, initcond = '0');
create operator warehouse.%% (function = warehouse.half, rightarg = integer);
create function warehouse.text_of(warehouse.pair) returns text language sql immutable return ($1).b;
create cast (warehouse.pair as text) with function warehouse.text_of(warehouse.pair);
create index on warehouse.values_of_all_kinds (warehouse.half(plain)) where plain is not null;
create index on warehouse.values_of_all_kinds using gin (docb);
create index on warehouse.values_of_all_kinds using brin (moment_zone);
alter table warehouse.dropped add constraint only_one exclude using btree (a with =);
alter table warehouse.parent cluster on parent_pkey;
alter table warehouse.parent replica identity full;
create statistics warehouse.of_values (dependencies) on plain, small from warehouse.values_of_all_kinds;

create view warehouse.seen as select id, words from warehouse.values_of_all_kinds;
create materialized view warehouse.first_view as select count(*) as rows from warehouse.seen;
create materialized view warehouse.a_second_view as select rows from warehouse.first_view;
create unique index on warehouse.a_second_view (rows);
create materialized view warehouse.unfilled as select 1 as one with no data;
create view warehouse.grouped as select p.id, p.note, count(*) from warehouse.parent as p group by p.id;
create rule quiet as on insert to warehouse.dropped where new.a < 0 do instead nothing;
create function warehouse.noted() returns trigger language plpgsql as 'begin insert into warehouse.no_columns default values; return new; end';
create trigger noted after insert on warehouse.parent for each row execute function warehouse.noted();
create trigger silent before insert on warehouse.parent for each row execute function warehouse.noted();
alter table warehouse.parent disable trigger silent;
alter table warehouse.parent enable always trigger noted;
create text search configuration warehouse.plain (copy = simple);
create table "Odd; -- name"."Tab ""le" ("Col ""umn" text, "select" integer);
insert into "Odd; -- name"."Tab ""le" values ('x', 1);
comment on table "Odd; -- name"."Tab ""le" is 'quoted; -- twice';
comment on schema warehouse is 'of everything';
comment on column warehouse.parent.note is 'said';
select lo_from_bytea(700001, '\x00010203'), lo_from_bytea(700002, ''), lo_from_bytea(700003, decode(repeat('ab', 9000000), 'hex'));
comment on large object 700001 is 'small';
create publication of_one for table warehouse.parent;
alter default privileges in schema warehouse revoke execute on functions from public;
