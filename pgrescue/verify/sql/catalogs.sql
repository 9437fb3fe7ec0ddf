-- Rules that the catalogs of every sound database obey. Each query gives one text for each row that breaks its rule.
-- rule pg_attribute: The columns of a relation are not as many as pg_class says
select c.relname || ' (' || c.oid || '): ' || count(a.attnum) || ' of ' || c.relnatts
  from pg_class c
  left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
 group by c.oid, c.relname, c.relnatts
having count(a.attnum) <> c.relnatts or coalesce(max(a.attnum), 0) <> c.relnatts
-- rule pg_attribute: A table lacks system columns
select c.relname || ' (' || c.oid || '): ' || count(a.attnum) || ' of 6'
  from pg_class c
  left join pg_attribute a on a.attrelid = c.oid and a.attnum < 0
 where c.relkind in ('r', 'm', 't', 'p', 'f', 'S')
 group by c.oid, c.relname
having count(a.attnum) <> 6
-- rule pg_attribute: A column and its default do not agree
select c.relname || '.' || a.attname || ' (' || a.attrelid || '/' || a.attnum || ')'
  from pg_attribute a
  left join pg_class c on c.oid = a.attrelid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where a.atthasdef <> (d.oid is not null)
-- rule pg_index: An index of pg_class is missing in pg_index
select c.relname || ' (' || c.oid || ')'
  from pg_class c
  left join pg_index i on i.indexrelid = c.oid
 where c.relkind in ('i', 'I') and i.indexrelid is null
-- rule pg_index: A row is not of an index, or does not have its number of columns
select c.relname || ' (' || i.indexrelid || ')'
  from pg_index i
  join pg_class c on c.oid = i.indexrelid
 where c.relkind not in ('i', 'I') or c.relnatts <> i.indnatts
-- rule pg_index: A row's table cannot have an index, or is not said to have one
select c.relname || ' (' || c.oid || '), index ' || i.indexrelid
  from pg_index i
  join pg_class c on c.oid = i.indrelid
 where c.relkind not in ('r', 'm', 't', 'p') or not c.relhasindex
-- rule pg_class: The TOAST table of a table is no TOAST table
select c.relname || ' (' || c.oid || '): ' || c.reltoastrelid
  from pg_class c
  join pg_class t on t.oid = c.reltoastrelid
 where t.relkind <> 't'
-- rule pg_class: A TOAST table does not belong to exactly one table
select t.relname || ' (' || t.oid || ')'
  from pg_class t
  left join pg_class c on c.reltoastrelid = t.oid
 where t.relkind = 't'
 group by t.oid, t.relname
having count(c.oid) <> 1
-- rule pg_class: A relation and its row type do not agree
select c.relname || ' (' || c.oid || '): ' || c.reltype
  from pg_class c
  left join pg_type t on t.oid = c.reltype
 where c.relkind in ('r', 'p', 'm', 'v', 'f', 'c') and t.typrelid is distinct from c.oid
-- rule pg_type: A row type and its relation do not agree
select t.typname || ' (' || t.oid || '): ' || t.typrelid
  from pg_type t
  left join pg_class c on c.oid = t.typrelid
 where (t.typtype = 'c') <> (t.typrelid <> 0) or (t.typtype = 'c' and c.reltype is distinct from t.oid)
-- rule pg_type: An array type and its element type do not agree
select t.typname || ' (' || t.oid || '): ' || t.typarray
  from pg_type t
  join pg_type a on a.oid = t.typarray
 where a.typelem <> t.oid
-- rule pg_constraint: The check constraints of a table are not as many as pg_class says
select c.relname || ' (' || c.oid || '): ' || count(k.oid) || ' of ' || c.relchecks
  from pg_class c
  left join pg_constraint k on k.conrelid = c.oid and k.contype = 'c'
 group by c.oid, c.relname, c.relchecks
having count(k.oid) <> c.relchecks
-- rule pg_constraint: A key has no index
select k.conname || ' (' || k.oid || ')'
  from pg_constraint k
  left join pg_index i on i.indexrelid = k.conindid
 where k.contype in ('p', 'u', 'x') and i.indexrelid is null
-- rule pg_constraint: A constraint belongs to neither a table nor a type
select k.conname || ' (' || k.oid || ')'
  from pg_constraint k
 where k.conrelid = 0 and k.contypid = 0 and k.contype <> 'a'
-- rule pg_trigger: A table has triggers and is said to have none
select distinct c.relname || ' (' || c.oid || ')'
  from pg_trigger t
  join pg_class c on c.oid = t.tgrelid
 where not c.relhastriggers
-- rule pg_rewrite: A view has no definition
select c.relname || ' (' || c.oid || ')'
  from pg_class c
 where c.relkind in ('v', 'm')
   and not exists (select from pg_rewrite r where r.ev_class = c.oid and r.ev_type = '1')
-- rule pg_sequence: A sequence has no row there
select c.relname || ' (' || c.oid || ')'
  from pg_class c
 where c.relkind = 'S' and not exists (select from pg_sequence s where s.seqrelid = c.oid)
-- rule pg_foreign_table: A foreign table has no row there
select c.relname || ' (' || c.oid || ')'
  from pg_class c
 where c.relkind = 'f' and not exists (select from pg_foreign_table f where f.ftrelid = c.oid)
-- rule pg_partitioned_table: A partitioned table has no row there
select c.relname || ' (' || c.oid || ')'
  from pg_class c
 where c.relkind = 'p' and not exists (select from pg_partitioned_table p where p.partrelid = c.oid)
-- rule pg_inherits: A partition has no parent
select c.relname || ' (' || c.oid || ')'
  from pg_class c
 where c.relispartition and not exists (select from pg_inherits i where i.inhrelid = c.oid)
-- rule pg_depend: A relation does not depend on anything, so that a DROP of its schema leaves it behind
select c.relname || ' (' || c.oid || ')'
  from pg_class c
 where c.oid >= 16384 and c.relkind in ('r', 'p', 'm', 'v', 'f', 'c', 'S') and c.relnamespace <> 11
   and not exists (select from pg_depend d where d.classid = 1259 and d.objid = c.oid and d.objsubid = 0)
-- rule pg_depend: An index depends neither on its table nor on its constraint
select c.relname || ' (' || c.oid || ')'
  from pg_class c
  join pg_index i on i.indexrelid = c.oid
 where c.oid >= 16384 and i.indrelid >= 16384
   and not exists (
       select from pg_depend d
        where d.classid = 1259 and d.objid = c.oid
          and ((d.refclassid = 1259 and d.refobjid = i.indrelid) or d.refclassid = 2606))
   -- A TOAST table's index is dropped with it by name, without an entry.
   and c.relnamespace <> 99
-- rule pg_depend: A TOAST table does not depend on its table
select t.relname || ' (' || t.oid || ')'
  from pg_class t
  join pg_class c on c.reltoastrelid = t.oid
 where c.oid >= 16384
   and not exists (select from pg_depend d where d.classid = 1259 and d.objid = t.oid and d.refobjid = c.oid)
-- rule pg_depend: A constraint depends on nothing
select k.conname || ' (' || k.oid || ')'
  from pg_constraint k
 where k.oid >= 16384 and not exists (select from pg_depend d where d.classid = 2606 and d.objid = k.oid)
-- rule pg_depend: A column's default depends on nothing
select x.oid::text
  from pg_attrdef x
 where x.oid >= 16384 and not exists (select from pg_depend d where d.classid = 2604 and d.objid = x.oid)
-- rule pg_depend: A type depends on nothing
select t.typname || ' (' || t.oid || ')'
  from pg_type t
 where t.oid >= 16384 and t.typnamespace <> 11
   and not exists (select from pg_depend d where d.classid = 1247 and d.objid = t.oid)
-- rule pg_depend: A function depends on nothing
select p.proname || ' (' || p.oid || ')'
  from pg_proc p
 where p.oid >= 16384 and p.pronamespace <> 11
   and not exists (select from pg_depend d where d.classid = 1255 and d.objid = p.oid)
-- rule pg_depend: A trigger or a rule depends on nothing
select t.tgname || ' (' || t.oid || ')'
  from pg_trigger t
 where t.oid >= 16384 and not exists (select from pg_depend d where d.classid = 2620 and d.objid = t.oid)
 union all
select r.rulename || ' (' || r.oid || ')'
  from pg_rewrite r
 where r.oid >= 16384 and not exists (select from pg_depend d where d.classid = 2618 and d.objid = r.oid)
