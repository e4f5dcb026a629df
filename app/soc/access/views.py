"""The way in, and the page for who is sent away."""

import logging
from typing import Any

from django.conf import settings
from django.contrib.auth.views import LoginView
from django.urls import reverse
from django.utils.http import urlencode

logger = logging.getLogger(__name__)


class SignIn(LoginView):
    """The sign-in page, with the provider's door beside it if the site has one."""

    template_name = "sign_in.html"

    def get_redirect_url(self) -> str:
        """Return where to go afterwards; what leads elsewhere is logged and left out."""
        target = self.request.POST.get("next", self.request.GET.get("next", ""))
        url = super().get_redirect_url()
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
