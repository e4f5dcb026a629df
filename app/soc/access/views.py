"""The way in, and the page for who is sent away."""

import logging
from typing import Any

from django.conf import settings
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode

from soc.access import oidc

logger = logging.getLogger(__name__)


class SignIn(LoginView):
    """The sign-in page, with the provider's door beside it if the site has one."""

    template_name = "sign_in.html"

    def get_redirect_url(self, *asked: Any, **options: Any) -> str:
        """Return where to go afterwards; what leads elsewhere is logged and left out."""
        target = self.request.POST.get("next", self.request.GET.get("next", ""))
        url = super().get_redirect_url(*asked, **options)
        if target and not url:
            logger.warning("Refused to send a browser from sign-in to %.200r", target)
        return url

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Return what the template shows."""
        data = super().get_context_data(**context)
        # Django's view would put the host's name there.
        data["site_name"] = settings.SITE["SOC_SITE"]
        if settings.OIDC_ISSUER:
            query = urlencode({"next": data["next"]}) if data["next"] else ""
            data["provider"] = reverse("oidc-start") + (f"?{query}" if query else "")
        return data


class SignOut(LogoutView):
    """The way out; who came in by the provider is sent to end their session there too."""

    next_page = "login"

    def post(self, request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        """End the session here, then show the way to the provider.

        A page and no redirect: the Content-Security-Policy lets no form lead to another site.
        """
        provider = oidc.sign_out_url(request)
        answer = super().post(request, *args, **options)
        if not provider:
            return answer
        return render(request, "signed_out.html", {"provider": provider})
