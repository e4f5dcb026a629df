"""The site's addresses: those that each application's ``urls`` declares, and the admin's."""

from django.contrib import admin
from django.urls import path

from soc.common import plugins

urlpatterns = [
    *(pattern for module in plugins.modules("urls") for pattern in module.urlpatterns),
    # After the sign-in's, which takes the place of the admin's.
    path("admin/", admin.site.urls),
]
