"""The alerts' pages that mails link to."""

LINKED = {
    "alerts": "alerts/",
    "alert": "alerts/<int:key>/",
    "acknowledge": "acknowledge/<str:key>/<str:secret>/",
}
