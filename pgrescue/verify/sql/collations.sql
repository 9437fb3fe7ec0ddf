-- Collations with another version than when they were last used, with the indexes that are sorted by them and the
-- number of columns that use them. A database without a version, or a system without one, has nothing to compare.
with changed as (
    select c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.collname) as name, c.collversion as was,
           pg_collation_actual_version(c.oid) as now
      from pg_collation c
      join pg_namespace n on n.oid = c.collnamespace
     where c.collversion is not null and c.collversion is distinct from pg_collation_actual_version(c.oid)
       and pg_collation_actual_version(c.oid) is not null
)
select c.name, c.was, c.now, i.names, a.columns
  from changed c,
       lateral (select count(*) as columns
                  from pg_attribute a
                 where a.attcollation = c.oid and a.attnum > 0 and not a.attisdropped) a,
       lateral (select coalesce(array_agg(x.indexrelid::regclass::text order by 1), '{}') as names
                  from pg_index x
                 where c.oid = any (x.indcollation::oid[])) i
 where a.columns > 0 or cardinality(i.names) > 0
 order by 1
