-- All foreign keys, also those that partitions have from their parents, with these.
select f.oid::bigint,
       f.conname,
       f.conrelid::bigint,
       f.confrelid::bigint,
       nullif(f.conparentid, 0)::bigint,
       f.convalidated and coalesce((pg_catalog.to_jsonb(f) ->> 'conenforced')::boolean, true),
       f.condeferred,
       pg_catalog.pg_get_constraintdef(f.oid),
       pg_catalog.obj_description(f.oid, 'pg_constraint')
  from pg_catalog.pg_constraint as f
 where f.contype = 'f'
 order by f.conrelid, f.conname
