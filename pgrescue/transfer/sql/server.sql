-- What a session's database is, and what a role may do there: the one that is named, where there is one, else the
-- session's own. Columns that came with a later major are read through to_jsonb.
select d.oid::bigint,
       d.datname::text,
       pg_catalog.current_setting('server_version_num')::integer / 10000,
       pg_catalog.pg_encoding_to_char(d.encoding),
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c'),
       case when pg_catalog.to_jsonb(d) ->> 'datlocprovider' in ('i', 'b')
            then coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale')
            else d.datcollate end,
       d.datctype,
       pg_catalog.to_jsonb(d) ->> 'datcollversion',
       r.rolname::text,
       r.rolsuper,
       r.rolcreaterole,
       pg_catalog.has_database_privilege(r.oid, d.oid, 'CREATE'),
       pg_catalog.pg_is_in_recovery() or pg_catalog.current_setting('default_transaction_read_only') = 'on',
       pg_catalog.pg_database_size(d.oid),
       pg_catalog.current_setting('server_version')
  from pg_catalog.pg_database as d, pg_catalog.pg_roles as r
 where d.datname = pg_catalog.current_database()
   and r.rolname = coalesce((select k.rolname from pg_catalog.pg_roles as k where k.rolname = %(role)s), current_user)
