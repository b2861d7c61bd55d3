"""Where everything is mounted."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from config import health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    # One way in for everybody: the portal's log-in is the one that counts failures.
    path("admin/login/", RedirectView.as_view(url="/login?next=/admin/"), name="admin-login"),
    path("admin/", admin.site.urls),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path(
        "api/docs",
        SpectacularSwaggerSplitView.as_view(url_name="schema", template_name="portal/api_docs.html"),
        name="api-docs",
    ),
    path("api/v1/", include("config.api_urls")),
    path("", include("portal.urls")),
]
