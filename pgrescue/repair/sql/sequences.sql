-- The columns of whole numbers that a sequence feeds (serial and identity columns, and defaults with nextval()), and
-- those that refer to them: a row of which only the references are left had its number from the sequence, too.
with fed as (
  select d.objid as sequence, d.refobjid as relation, d.refobjsubid::int2 as attnum
    from pg_catalog.pg_depend d
   where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
     and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     and d.deptype in ('a', 'i')
     and d.refobjsubid > 0
   union
  select d.refobjid, f.adrelid, f.adnum
    from pg_catalog.pg_depend d
    join pg_catalog.pg_attrdef f on f.oid = d.objid
   where d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
     and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
), known as (
  select sequence, relation, attnum, 0 as distance
    from fed
   union
  select f.sequence, k.conrelid, k.conkey[referred.place], 1
    from fed f
    join pg_catalog.pg_constraint k on k.contype = 'f' and k.confrelid = f.relation and k.conparentid = 0
   cross join lateral pg_catalog.unnest(k.confkey) with ordinality as referred (attnum, place)
   where referred.attnum = f.attnum
)
select distinct s.oid::bigint, sn.nspname, s.relname, tn.nspname, t.relname, a.attname, t.relkind = 'p',
       q.seqincrement, q.seqmin, q.seqmax, u.distance
  from known u
  join pg_catalog.pg_class s on s.oid = u.sequence and s.relkind = 'S' and s.relpersistence in ('p', 'u')
  join pg_catalog.pg_namespace sn on sn.oid = s.relnamespace
  join pg_catalog.pg_sequence q on q.seqrelid = s.oid and not q.seqcycle
  join pg_catalog.pg_class t on t.oid = u.relation and t.relkind in ('r', 'p')
  join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = u.attnum and not a.attisdropped
 where a.atttypid in ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)
 order by 2, 3, 11, 4, 5, 6
