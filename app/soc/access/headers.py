"""What headers browsers get with every answer."""

from collections.abc import Callable

from csp.constants import NONCE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.base import Origin
from django.template.loaders import app_directories

# The theme's Alpine.js evaluates the expressions in its attributes and writes style attributes;
# neither lets a script into a page.
ADMIN_POLICY = {
    "script-src": [SELF, UNSAFE_EVAL],
    "style-src-elem": [SELF, NONCE],
    "style-src-attr": [UNSAFE_INLINE],
}
_FEATURES = (
    *("accelerometer", "autoplay", "camera", "display-capture", "encrypted-media", "fullscreen"),
    *("geolocation", "gyroscope", "magnetometer", "microphone", "midi", "payment"),
    *("picture-in-picture", "publickey-credentials-get", "screen-wake-lock", "usb"),
    "xr-spatial-tracking",
)
PERMISSIONS_POLICY = ", ".join(f"{feature}=()" for feature in _FEATURES)


class ContentPolicy(CSPMiddleware):
    """Gives the admin the least policy that its theme works with, and all else the strict one."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        """Return the policy of an answer."""
        parts = super().get_policy_parts(request, response, report_only)
        if request.path.startswith("/admin/"):
            parts.replace = ADMIN_POLICY
        return parts


class HeadersMiddleware:
    """Turns off what no page uses, and keeps signed-in people's pages out of caches."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        response = self.get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        user = getattr(request, "user", None)
        if user is not None and user.is_authenticated:
            response.headers["Cache-Control"] = "no-store, private"
        return response


class NonceLoader(app_directories.Loader):
    """Loads templates of applications with a nonce on their inline style sheets.

    The nonce goes into the source, which is trusted, and not into what the page shows.
    """

    def get_contents(self, origin: Origin) -> str:
        """Return the source of a template."""
        return super().get_contents(origin).replace("<style", '<style nonce="{{ CSP_NONCE }}"')
