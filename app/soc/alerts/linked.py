"""The alerts' pages that mails link to."""

LINKED = {
    "alerts": "alerts/",
    "alert": "alerts/<int:key>/",
    "handover": "alerts/handover/",
    "acknowledge": "acknowledge/<str:key>/<str:secret>/",
}
