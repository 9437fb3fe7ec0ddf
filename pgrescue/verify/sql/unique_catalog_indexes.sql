-- The unique indexes of the catalogs with their columns; a predicate or an expression is in none of them.
select i.indexrelid::bigint, t.relname, x.relname, t.relisshared,
       (select array_agg(a.attname order by k.position)
          from unnest(i.indkey::int2[]) with ordinality as k (number, position)
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
         where k.position <= i.indnkeyatts)
  from pg_index i
  join pg_class t on t.oid = i.indrelid
  join pg_class x on x.oid = i.indexrelid
 where t.relnamespace = 11 and t.oid < 16384 and i.indisunique and i.indisvalid
   and (%(has_shared)s or not t.relisshared)
 order by 2, 3
