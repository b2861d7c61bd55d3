from django.db import migrations

from tenants.rls import sequences, shared


class Migration(migrations.Migration):
    """What the framework's own tables must allow the application's role."""

    dependencies = [
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("sessions", "0001_initial"),
        ("billing", "0003_walls"),
    ]

    operations = [
        *[
            shared(table)
            for table in (
                "auth_group",
                "auth_group_permissions",
                "auth_permission",
                "django_admin_log",
                "django_content_type",
                "django_session",
            )
        ],
        shared("django_migrations", grants="SELECT"),
        sequences("config"),
    ]
