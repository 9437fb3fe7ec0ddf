-- Constraints that were not validated, and indexes that are not used, of users.
select case x.contype when 'f' then 'foreign key' else 'constraint' end, n.nspname || '.' || c.relname || '.' || x.conname
  from pg_catalog.pg_constraint as x
  join pg_catalog.pg_class as c on c.oid = x.conrelid
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where not x.convalidated and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
   and n.nspname not like 'pgrescue\_%'
union all
select 'index', n.nspname || '.' || c.relname
  from pg_catalog.pg_index as i
  join pg_catalog.pg_class as c on c.oid = i.indexrelid
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where not (i.indisvalid and i.indisready) and n.nspname !~ '^pg_' and n.nspname not like 'pgrescue\_%'
 order by 1, 2
