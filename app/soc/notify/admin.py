"""The admin's pages of subscriptions and mail."""

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet, TextField
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from soc.common.times import local
from soc.core.admin import ReadOnlyAdmin, preformatted
from soc.notify import channels, destinations, health, outbox, relay, reports, templates, tickets
from soc.notify.models import LIFE, Bounce, OutboundMail, Subscription
from soc.notify.recipients import Recipients


def _framed(html: str) -> SafeString:
    """Return a mail's HTML in a frame that can run no script and reach nothing of the page."""
    return format_html(
        '<iframe title="The mail" sandbox="" width="100%" height="480" srcdoc="{}"></iframe>',
        # A template's output counts as safe, which would close the attribute: always escape.
        escape(html),
    )


@admin.register(Subscription)
class SubscriptionAdmin(ModelAdmin):
    """Who is notified, about what, when and how, under which subject and with which text."""

    list_display = (
        *("name", "enabled", "recipient_list", "channel", "destination_state"),
        *("minimum_severity", "wanted", "report"),
    )
    list_editable = ("enabled",)
    search_fields = ("name", "recipients", "fallback_recipients", "tags")
    actions_detail = ("preview", "send_test")
    readonly_fields = ("next_report_at",)
    formfield_overrides = {TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}
    fieldsets = (
        (
            None,
            {"fields": ("name", "enabled", ("recipients", "fallback_recipients"), "rota", "tags")},
        ),
        (
            "Channel",
            {
                "description": "E-mail goes to the recipients above. The other channels post to an "
                "address; docs/channels.md says what.",
                "fields": ("channel", ("url", "secret")),
            },
        ),
        (
            "What it gets",
            {"fields": (("minimum_severity", "applications"), "csv", "acknowledge_links")},
        ),
        (
            "Quiet hours",
            {
                "description": "Notices of these hours wait for their end. Reports do not.",
                "fields": (("quiet_from", "quiet_until"), "quiet_breakthrough"),
            },
        ),
        (
            "Digests",
            {
                "description": "A digest is one mail with a table in place of many notices. What "
                "has waited for the relay to come back becomes one in any case.",
                "fields": (("digest_minutes", "storm_limit"),),
            },
        ),
        (
            "Report",
            {
                "fields": (
                    ("report", "report_at"),
                    "report_also_at",
                    "report_when_empty",
                    "next_report_at",
                )
            },
        ),
        (
            "Texts",
            {
                "description": "The preview shows them with a sample notice, once saved. Digests "
                "have a text of their own.",
                "fields": ("subject_template", "text_template"),
            },
        ),
    )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list, and say so when mail to recipients has come back."""
        if bounced := health.bounced_recipients():
            text = "; ".join(f"{row.address}, {local(row.at)}: {row.words}" for row in bounced)
            self.message_user(request, f"Mail came back from {text}", messages.WARNING)
        page: HttpResponse = super().changelist_view(request, extra_context)
        return page

    @display(description="Recipients")
    def recipient_list(self, subscription: Subscription) -> str:
        """Return the recipients in one line."""
        if subscription.channel != channels.EMAIL:
            return subscription.url_host
        rota = [f"on call: {subscription.rota}"] if subscription.rota else []
        return ", ".join([*subscription.addresses, *rota])

    @display(description="Destination")
    def destination_state(self, subscription: Subscription) -> str:
        """Return since when the destination is down, and its words."""
        row = getattr(subscription, "destination", None)
        if row is None or row.down_since is None:
            return ""
        return f"down since {local(row.down_since)}: {row.last_error}"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        """Read the destinations along with the subscriptions."""
        found: QuerySet[Subscription] = super().get_queryset(request)
        return found.select_related("destination", "rota")

    def get_readonly_fields(
        self, request: HttpRequest, obj: Subscription | None = None
    ) -> tuple[str, ...]:
        """Keep the channel: what waits for it would find no destination."""
        return (*self.readonly_fields, "channel") if obj else self.readonly_fields

    @display(description="Applications", ordering="applications")
    def wanted(self, subscription: Subscription) -> str:
        """Return the applications whose notices it gets."""
        return subscription.applications or "all"

    def save_model(
        self, request: HttpRequest, subscription: Subscription, form: ModelForm, change: bool
    ) -> None:
        """Plan the next report again when its time has changed."""
        if {"enabled", "report", "report_at", "report_also_at", "rota"} & set(form.changed_data):
            subscription.next_report_at = reports.first_after(subscription, timezone.now())
        if {"enabled", "report"} & set(form.changed_data):
            # What came up while nobody wanted reports is not reported afterwards.
            subscription.reported_until = None
        super().save_model(request, subscription, form, change)

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

    @action(description="Send a test", icon="outgoing_mail", permissions=["change"])
    def send_test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for whom, then put a test mail into the outbox and show what becomes of it."""
        subscription = get_object_or_404(Subscription, pk=object_id)
        by_mail = subscription.channel == channels.EMAIL
        own = getattr(request.user, "email", "") if by_mail else ""
        everybody = Recipients(timezone.now()).of(subscription)
        to = {"me": [own] if own else [], "recipients": everybody}
        chosen = to.get(request.POST.get("to", ""), []) if subscription.enabled else []
        if request.method != "POST" or not chosen:
            context = {
                **self.admin_site.each_context(request),
                "title": f"Test of {subscription}",
                "opts": self.opts,
                "subscription": subscription,
                "own": own,
                "everybody": everybody,
                "by_mail": by_mail,
            }
            return TemplateResponse(request, "notify/send_test.html", context)
        mail = outbox.enqueue_test(subscription, chosen)
        text = f"A test to {', '.join(chosen)} goes out within 30 s; its page shows how it fares."
        self.message_user(request, text, messages.SUCCESS)
        if request.user.has_perm("notify.view_outboundmail"):
            return redirect("admin:notify_outboundmail_change", mail.pk)
        return redirect("admin:notify_subscription_change", subscription.pk)


@admin.register(Bounce)
class BounceAdmin(ReadOnlyAdmin):
    """Recipients whose mail came back; one whose address works again is deleted by hand."""

    list_display = ("address", "at", "words", "mail")
    list_fullwidth = True
    search_fields = ("address", "words")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Bounce]:
        """Read the mails along, without what is in them."""
        found: QuerySet[Bounce] = super().get_queryset(request)
        return found.select_related("mail").defer("mail__text", "mail__html", "mail__csv")

    def has_delete_permission(self, request: HttpRequest, *objects: Any) -> bool:
        """Deleting a row says that the address has been seen to."""
        return bool(ModelAdmin.has_delete_permission(self, request, *objects))


@admin.register(OutboundMail)
class OutboundMailAdmin(ReadOnlyAdmin):
    """The outbox: every mail, sent or not."""

    list_display = ("envelope", "kind", "state_label", "attempts", "created_at", "last_error")
    list_filter = ("state", "channel", "kind", "severity", "subscription")
    list_fullwidth = True
    search_fields = ("subject", "recipients", "last_error", "message_id", "topic")
    date_hierarchy = "created_at"
    show_full_result_count = False
    actions = ("try_again",)
    readonly_fields = (
        *("subject", "state_label", "recipient_list", "subscription", "created_at", "sent_at"),
        *("attempts", "next_try_at", "smtp_code", "last_error", "message_id", "dedupe_key"),
        *(
            "channel",
            "kind",
            "severity",
            "application",
            "topic",
            "expires_at",
            "withdrawn_at",
            "digest",
        ),
        *("fallback_of", "delivered_list", "refused_list", "notices", "attachment"),
        *("as_html", "as_text"),
    )
    fieldsets = (
        (
            None,
            {
                "fields": (
                    *("subject", "recipient_list", ("subscription", "channel", "kind")),
                    *(("severity", "application"), "topic"),
                )
            },
        ),
        (
            "Delivery",
            {
                "fields": (
                    *("state_label", "delivered_list", "refused_list", ("created_at", "sent_at")),
                    *(("attempts", "next_try_at"), ("expires_at", "withdrawn_at"), "smtp_code"),
                    *("last_error", ("digest", "notices"), "fallback_of"),
                    *("message_id", "dedupe_key"),
                )
            },
        ),
        ("Content", {"fields": ("as_html", "as_text", "attachment")}),
    )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list, and say so when the relay is down."""
        relay_state = health.relay_state()
        if relay_state.down_since:
            since = local(relay_state.down_since)
            text = f"The relay has been down since {since}, mail waits: {relay_state.error}"
            self.message_user(request, text, messages.WARNING)
        page: HttpResponse = super().changelist_view(request, extra_context)
        return page

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
            OutboundMail.State.EXPIRED.label: "danger",
        },
    )
    def state_label(self, mail: OutboundMail) -> str:
        """Return the state as a coloured word."""
        return mail.get_state_display()

    @display(description="Recipients")
    def recipient_list(self, mail: OutboundMail) -> str:
        """Return the recipients in one line."""
        return ", ".join(mail.recipients)

    @display(description="Taken for")
    def delivered_list(self, mail: OutboundMail) -> str:
        """Return the recipients that the relay has taken it for."""
        return ", ".join(mail.delivered) or "nobody"

    @display(description="Refused for")
    def refused_list(self, mail: OutboundMail) -> str:
        """Return the recipients that the relay refuses, with its words."""
        return templates.words_of(mail.refused) or "nobody"

    @display(description="Notices of this digest")
    def notices(self, mail: OutboundMail) -> SafeString | str:
        """Return a link to the notices that a digest stands for."""
        count = mail.members.count()
        if not count:
            return "none"
        query = urlencode({"digest__id__exact": mail.pk})
        return format_html(
            '<a href="{}?{}">{}</a>', reverse("admin:notify_outboundmail_changelist"), query, count
        )

    @display(description="Attachment")
    def attachment(self, mail: OutboundMail) -> SafeString | str:
        """Return the attached table."""
        return preformatted(f"{mail.csv_name}\n\n{mail.csv}") if mail.csv else "none"

    @display(description="HTML")
    def as_html(self, mail: OutboundMail) -> SafeString:
        """Return the HTML body as a mail program shows it."""
        return _framed(tickets.hidden(mail.html))

    @display(description="Text")
    def as_text(self, mail: OutboundMail) -> SafeString:
        """Return the text body."""
        return preformatted(tickets.hidden(mail.text))

    def has_try_again_permission(self, request: HttpRequest) -> bool:
        """Who may change mail may have it tried again, though nobody edits it."""
        return request.user.has_perm("notify.change_outboundmail")

    @action(description="Try again now", permissions=["try_again"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[OutboundMail]) -> None:
        """Make mails that were not sent due; the email worker takes them at its next round."""
        state, now = OutboundMail.State, timezone.now()
        again = {
            **{"state": state.QUEUED, "next_try_at": now, "expires_at": now + LIFE},
            **{"withdrawn_at": None, "alone": True},
        }
        count = queryset.filter(state=state.FAILED).update(refused={}, **again)
        count += queryset.filter(state=state.EXPIRED).update(**again)
        count += (
            queryset.filter(state=state.QUEUED)
            .exclude(next_try_at__lte=now)
            .update(next_try_at=now)
        )
        relay.probe_soon()
        destinations.probe_soon()
        text = f"{count} mails are due now and go out within 30 s."
        self.message_user(request, text, messages.SUCCESS)
