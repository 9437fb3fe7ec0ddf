-- One object of each kind that a transfer can make, and that a start over has to drop; each line is a task.
create schema "Own ""S"
create table t (id serial primary key, e text unique)
create table "Own ""S"."T 1" (id integer generated always as identity)
create type mood as enum ('a', 'b')
create type pair as (a integer, b mood)
create domain short as text check (length(value) < 9)
create type spans as range (subtype = float8)
create table parts (id integer, m mood, s short, p pair, r spans) partition by range (id)
create table parts_1 partition of parts for values from (1) to (2)
create sequence counter
create view v as select * from t
create materialized view mv as select * from v
create rule r as on insert to v do instead nothing
create statistics st on id, e from t
create function f(a integer, variadic b text[]) returns integer language sql immutable return 1
create procedure p(inout a integer) language sql begin atomic select 1; end
create aggregate total(integer) (sfunc = int4pl, stype = integer, initcond = 0)
create aggregate nothing(*) (sfunc = int8inc, stype = int8, initcond = 0)
create aggregate middle(double precision order by double precision) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra)
create function same(pair, pair) returns boolean language sql immutable return true
create operator === (leftarg = pair, rightarg = pair, function = same)
create function neg(pair) returns integer language sql immutable return 1
create operator !!! (rightarg = pair, function = neg)
create cast (pair as integer) with function neg(pair)
create operator family own_family using btree
create operator class own_class for type int4 using btree family own_family as operator 1 <, function 1 btint4cmp(int4, int4)
create operator class odd_class for type date using hash family date_ops as operator 1 = (date, timestamp)
create collation plain from "C"
create conversion own_conversion for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8
create text search dictionary own_dictionary (template = simple)
create text search configuration own_configuration (copy = simple)
create text search parser own_parser (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype)
create text search template own_template (lexize = dsimple_lexize)
create foreign data wrapper own_wrapper
create server elsewhere foreign data wrapper own_wrapper
create user mapping for current_user server elsewhere
create foreign table far (a integer) server elsewhere
create extension citext
create table texts (a citext, b short)
create extension btree_gist schema "Own ""S"
create publication own_publication for table t
create function fire() returns event_trigger language plpgsql as 'begin end'
create event trigger own_trigger on ddl_command_start execute function fire()
create access method own_method type table handler heap_tableam_handler
create language own_language handler plpgsql_call_handler
create function to_pair(internal) returns internal language internal immutable as 'int4out'
create transform for pair language own_language (from sql with function to_pair(internal))
select lo_from_bytea(70000, 'x')
alter default privileges in schema public grant select on tables to public
alter default privileges in schema public grant usage on sequences to pg_monitor with grant option
alter default privileges revoke execute on functions from public
alter default privileges grant select on sequences to pg_monitor
