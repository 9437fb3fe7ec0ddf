-- Statements that give default privileges that the transfer changed the form back that they had before it: as its mark
-- noted them; else what the server gives by itself, which is nothing for one schema (aclchk.c, SetDefaultACL).
with changed as (
    select d.oid, r.rolname, n.nspname,
           case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'routines'
                                when 'T' then 'types' when 'n' then 'schemas' when 'L' then 'large objects' end as objects,
           d.defaclacl as now,
           coalesce(b.acl, case when d.defaclnamespace = 0
                                then pg_catalog.acldefault(case d.defaclobjtype when 'S' then 's' else d.defaclobjtype end,
                                                           d.defaclrole) end) as before
      from pg_catalog.pg_default_acl as d
      join pg_catalog.pg_roles as r on r.oid = d.defaclrole
      left join pg_catalog.pg_namespace as n on n.oid = d.defaclnamespace
      left join pgrescue_transfer.before as b
             on b.class = 'pg_catalog.pg_default_acl'::pg_catalog.regclass and b.object = d.oid
     where d.xmin::text::bigint in (select xid from pgrescue_transfer.done)
),
statement (oid, step, what, way, grantee, is_grantable) as (
    select c.oid, 1, 'revoke all', 'from', e.grantee, false
      from changed as c, lateral (select distinct grantee from pg_catalog.aclexplode(c.now)) as e
    union all
    select c.oid, 2, 'grant ' || e.privilege_type, 'to', e.grantee, e.is_grantable
      from changed as c, lateral pg_catalog.aclexplode(c.before) as e
)
select pg_catalog.format('alter default privileges for role %I%s %s on %s %s %s%s', c.rolname,
                         coalesce(' in schema ' || pg_catalog.quote_ident(c.nspname), ''), s.what, c.objects, s.way,
                         coalesce(pg_catalog.quote_ident(g.rolname), 'public'),
                         case when s.is_grantable then ' with grant option' else '' end)
  from statement as s
  join changed as c using (oid)
  left join pg_catalog.pg_roles as g on g.oid = s.grantee
 order by c.oid, s.step
