"""The admin's pages of subscriptions and mail."""

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from soc.core.admin import ReadOnlyAdmin, preformatted
from soc.notify import templates
from soc.notify.models import OutboundMail, Subscription


def _framed(html: str) -> SafeString:
    """Return a mail's HTML in a frame that can run no script and reach nothing of the page."""
    return format_html(
        '<iframe title="The mail" sandbox="" width="100%" height="480" srcdoc="{}"></iframe>',
        # A template's output counts as safe, which would close the attribute: always escape.
        escape(html),
    )


@admin.register(Subscription)
class SubscriptionAdmin(ModelAdmin):
    """Who gets mail, under which subject and with which text."""

    list_display = ("name", "enabled", "recipient_list", "tags")
    list_editable = ("enabled",)
    search_fields = ("name", "recipients", "tags")
    actions_detail = ("preview",)
    fieldsets = (
        (None, {"fields": ("name", "enabled", "recipients", "tags")}),
        (
            "Texts",
            {
                "description": "The preview shows them with a sample notice, once saved.",
                "fields": ("subject_template", "text_template"),
            },
        ),
    )

    @display(description="Recipients")
    def recipient_list(self, subscription: Subscription) -> str:
        """Return the recipients in one line."""
        return ", ".join(subscription.addresses)

    @action(description="Preview", icon="preview", permissions=["view"])
    def preview(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show a sample notice as the subscription's recipients would get it."""
        subscription = get_object_or_404(Subscription, pk=object_id)
        rendered = templates.render(
            templates.SAMPLE,
            subject=subscription.subject_template,
            text=subscription.text_template,
            site=settings.SITE["SOC_SITE"],
        )
        context = {
            **self.admin_site.each_context(request),
            "title": f"Preview of {subscription}",
            "opts": self.opts,
            "subscription": subscription,
            "subject": subscription.subject_prefix + rendered.subject,
            "text": preformatted(rendered.text),
            "html": _framed(rendered.html),
        }
        return TemplateResponse(request, "notify/preview.html", context)


@admin.register(OutboundMail)
class OutboundMailAdmin(ReadOnlyAdmin):
    """The outbox: every mail, sent or not."""

    list_display = ("envelope", "state_label", "attempts", "created_at", "last_error")
    list_filter = ("state", "subscription")
    list_fullwidth = True
    search_fields = ("subject", "recipients", "last_error", "message_id")
    date_hierarchy = "created_at"
    show_full_result_count = False
    actions = ("try_again",)
    readonly_fields = (
        *("subject", "state_label", "recipient_list", "subscription", "created_at", "sent_at"),
        *("attempts", "next_try_at", "smtp_code", "last_error", "message_id", "dedupe_key"),
        *("as_html", "as_text"),
    )
    fieldsets = (
        (None, {"fields": ("subject", "recipient_list", "subscription")}),
        (
            "Delivery",
            {
                "fields": (
                    *("state_label", ("created_at", "sent_at"), ("attempts", "next_try_at")),
                    *("smtp_code", "last_error", "message_id", "dedupe_key"),
                )
            },
        ),
        ("Content", {"fields": ("as_html", "as_text")}),
    )

    @display(description="Mail", ordering="subject", header=True)
    def envelope(self, mail: OutboundMail) -> list[str]:
        """Return the subject, and the recipients beneath."""
        return [mail.subject, self.recipient_list(mail)]

    @display(
        description="State",
        ordering="state",
        label={
            OutboundMail.State.QUEUED.label: "warning",
            OutboundMail.State.SENDING.label: "info",
            OutboundMail.State.SENT.label: "success",
            OutboundMail.State.FAILED.label: "danger",
        },
    )
    def state_label(self, mail: OutboundMail) -> str:
        """Return the state as a coloured word."""
        return mail.get_state_display()

    @display(description="Recipients")
    def recipient_list(self, mail: OutboundMail) -> str:
        """Return the recipients in one line."""
        return ", ".join(mail.recipients)

    @display(description="HTML")
    def as_html(self, mail: OutboundMail) -> SafeString:
        """Return the HTML body as a mail program shows it."""
        return _framed(mail.html)

    @display(description="Text")
    def as_text(self, mail: OutboundMail) -> SafeString:
        """Return the text body."""
        return preformatted(mail.text)

    def has_try_again_permission(self, request: HttpRequest) -> bool:
        """Who may change mail may have it tried again, though nobody edits it."""
        return request.user.has_perm("notify.change_outboundmail")

    @action(description="Try again now", permissions=["try_again"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[OutboundMail]) -> None:
        """Make mails that were not sent due; the email worker takes them at its next round."""
        state = OutboundMail.State
        count = queryset.filter(state__in=[state.QUEUED, state.FAILED]).update(
            state=state.QUEUED, next_try_at=timezone.now()
        )
        text = f"{count} mails are due now and go out within 30 s."
        self.message_user(request, text, messages.SUCCESS)
