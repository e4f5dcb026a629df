"""The mail collector's place in the navigation."""

from soc.common.nav import Menu

MENU = Menu(
    "Mail flow",
    ("Checks", "fact_check", "mail_collector.mailevent"),
    ("Mailboxes", "inbox", "mail_collector.mailbox"),
    ("Mails on their way", "forward_to_inbox", "mail_collector.delivery"),
    ("Mail routes", "compare_arrows", "mail_collector.route"),
    ("Mail settings", "tune", "mail_collector.mailsettings"),
)
