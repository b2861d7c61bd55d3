from django.db import migrations

from tenants.rls import keyed, points_at, sequences, shared, wall

# Calls and payloads are partitioned by month on their UUIDv7 id, so that old months are dropped and never mass-deleted.
# A partition named directly ignores its parent's policies: none is granted to anyone, and each gets the wall itself.
PARTITIONED = """
CREATE TABLE ingestion_call_parted (LIKE ingestion_call INCLUDING DEFAULTS) PARTITION BY RANGE (id);
DROP TABLE ingestion_call;
ALTER TABLE ingestion_call_parted RENAME TO ingestion_call;
ALTER TABLE ingestion_call ADD PRIMARY KEY (id);
ALTER TABLE ingestion_call ADD FOREIGN KEY (tenant_id) REFERENCES tenants_tenant (id) ON DELETE CASCADE;
CREATE INDEX call_by_time ON ingestion_call (tenant_id, at);
CREATE INDEX call_by_workload ON ingestion_call (tenant_id, workload_id, at);
CREATE INDEX call_by_subject ON ingestion_call (tenant_id, subject_hmac) WHERE subject_hmac <> '';
CREATE INDEX call_undiscovered ON ingestion_call (tenant_id, fingerprint) WHERE workload_id IS NULL;

CREATE TABLE ingestion_payload_parted (LIKE ingestion_payload INCLUDING DEFAULTS) PARTITION BY RANGE (call_id);
DROP TABLE ingestion_payload;
ALTER TABLE ingestion_payload_parted RENAME TO ingestion_payload;
ALTER TABLE ingestion_payload ADD PRIMARY KEY (call_id);
ALTER TABLE ingestion_payload ADD FOREIGN KEY (tenant_id) REFERENCES tenants_tenant (id) ON DELETE CASCADE;
"""

PARTITIONS = """
CREATE FUNCTION ingestion_uuid7_floor(instant timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex((extract(epoch FROM instant) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

CREATE FUNCTION ingestion_make_partition(parent text, suffix text, bounds text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE name text := parent || '_' || suffix;
BEGIN
  IF parent NOT IN ('ingestion_call', 'ingestion_payload') OR to_regclass(name) IS NOT NULL THEN RETURN; END IF;
  EXECUTE format('CREATE TABLE %I PARTITION OF %I %s', name, parent, bounds);
  EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
  EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
  EXECUTE format('CREATE POLICY tenant_wall ON %I TO understudy_app USING (tenant_id = '
    '(SELECT nullif(current_setting(''app.tenant'', true), '''')::uuid))', name);
END
$$;
REVOKE ALL ON FUNCTION ingestion_make_partition(text, text, text) FROM PUBLIC;

CREATE FUNCTION ingestion_make_partitions(from_day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  starts timestamptz := date_trunc('month', from_day::timestamp) AT TIME ZONE 'UTC';
  ends timestamptz;
  bounds text;
BEGIN
  FOR step IN 1..4 LOOP
    ends := ((starts AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
    bounds := format('FOR VALUES FROM (%L) TO (%L)', ingestion_uuid7_floor(starts), ingestion_uuid7_floor(ends));
    PERFORM ingestion_make_partition('ingestion_call', to_char(starts AT TIME ZONE 'UTC', 'YYYY_MM'), bounds);
    PERFORM ingestion_make_partition('ingestion_payload', to_char(starts AT TIME ZONE 'UTC', 'YYYY_MM'), bounds);
    starts := ends;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION ingestion_make_partitions(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ingestion_make_partitions(date) TO understudy_app;

SELECT ingestion_make_partitions((now() AT TIME ZONE 'UTC')::date);
SELECT ingestion_make_partition('ingestion_call', 'other', 'DEFAULT');
SELECT ingestion_make_partition('ingestion_payload', 'other', 'DEFAULT');
"""


class Migration(migrations.Migration):
    dependencies = [("ingestion", "0002_initial"), ("tenants", "0002_walls")]

    operations = [
        migrations.RunSQL(PARTITIONED, migrations.RunSQL.noop),
        migrations.RunSQL(PARTITIONS, migrations.RunSQL.noop),
        wall("ingestion_workload", door=True),
        wall("ingestion_fingerprint", door=True),
        wall("ingestion_call"),
        wall("ingestion_payload"),
        wall("ingestion_dataset"),
        wall("ingestion_example"),
        *[keyed(f"ingestion_{name}") for name in ("workload", "fingerprint", "dataset", "example")],
        points_at("ingestion_fingerprint", "workload_id", "ingestion_workload"),
        points_at("ingestion_dataset", "workload_id", "ingestion_workload"),
        points_at("ingestion_example", "dataset_id", "ingestion_dataset"),
        shared("ingestion_price"),
        shared("ingestion_parkedrecord"),
        sequences("ingestion"),
    ]
