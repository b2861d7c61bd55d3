from django.db import migrations

from tenants.rls import keyed, points_at, wall


class Migration(migrations.Migration):
    dependencies = [("serving", "0002_initial"), ("training", "0002_walls")]

    operations = [
        wall("serving_deployment", door=True),
        wall("serving_evaluation"),
        wall("serving_certificate", door=True),
        wall("serving_rollout", door=True),
        wall("serving_audit"),
        *[keyed(f"serving_{name}") for name in ("deployment", "evaluation", "certificate", "rollout", "audit")],
        points_at("serving_deployment", "adapter_id", "training_adapter"),
        points_at("serving_evaluation", "deployment_id", "serving_deployment"),
        points_at("serving_certificate", "evaluation_id", "serving_evaluation"),
        points_at("serving_certificate", "adapter_id", "training_adapter"),
        points_at("serving_rollout", "workload_id", "ingestion_workload"),
        points_at("serving_rollout", "deployment_id", "serving_deployment"),
        points_at("serving_rollout", "certificate_id", "serving_certificate"),
        points_at("serving_audit", "rollout_id", "serving_rollout"),
    ]
