"""The ways in and out of the site."""

from django.contrib.auth.decorators import login_not_required
from django.urls import path
from django.views.generic import RedirectView

from soc.access import oidc
from soc.access.views import SignIn, SignOut

_TO_SIGN_IN = RedirectView.as_view(pattern_name="login", query_string=True)

urlpatterns = [
    path("sign-in/", SignIn.as_view(), name="login"),
    path("sign-in/provider/", oidc.start, name="oidc-start"),
    path("sign-in/provider/back/", oidc.callback, name="oidc-callback"),
    path("sign-out/", SignOut.as_view(), name="logout"),
    # One way in and out, for the admin as well.
    path("admin/login/", login_not_required(_TO_SIGN_IN)),
    path("admin/logout/", SignOut.as_view()),
]
