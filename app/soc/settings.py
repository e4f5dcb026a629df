"""Django's and Celery's settings, everything from the site's environment.

A process gets three things: the site's variables (``env/<site>.env``), its own folder of secrets
and certificates (``SOC_IDENTITY``), and its name (``SOC_SERVICE``). Bad values stop it at once.
"""

import os
import ssl
from datetime import timedelta
from pathlib import Path

from csp.constants import NONE, SELF
from kombu import Exchange
from kombu import Queue as KombuQueue

from soc.provision import environment
from soc.provision.identity import database_user
from soc.runtime.queues import QUORUM, TASK_EXCHANGE, TASK_QUEUES

SITE = environment.of_process(os.environ)
EMBEDDED = SITE["SOC_STACK"] == "embedded"
SERVICE = os.environ["SOC_SERVICE"]
IDENTITY = Path(os.environ["SOC_IDENTITY"])
STATE = Path(os.environ["SOC_STATE"])
"""Where a process may write: a tmpfs in a container, a folder of the embedded stack."""

BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = (IDENTITY / "secret_key").read_text(encoding="utf-8").strip()
_old_key = IDENTITY / "secret_key_old"
# What was signed before a rotation stays valid for a day.
SECRET_KEY_FALLBACKS = [_old_key.read_text().strip()] if _old_key.exists() else []
DEBUG = False
_hostnames = environment.split(SITE["SOC_HOSTNAMES"])
# An IPv6 address stands in brackets in a URL (RFC 3986, 3.2.2).
ALLOWED_HOSTS = [*(f"[{name}]" if ":" in name else name for name in _hostnames), "localhost"]
SERVES_PAGES = SERVICE in ("web", "migrate")
# What only writes links into mails needs no views, forms and API: a quarter of its memory.
ROOT_URLCONF = "soc.urls" if SERVES_PAGES else "soc.addresses"
WSGI_APPLICATION = "soc.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    *(
        ("unfold", "unfold.contrib.filters", "django.contrib.admin")
        if SERVES_PAGES
        else ("django.contrib.admin.apps.SimpleAdminConfig",)
    ),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "auditlog",
    "axes",
    "csp",
    "django_celery_beat",
    # In the order of the navigation and of the board.
    "soc.board",
    "soc.alerts",
    "soc.robots",
    "soc.ldap_probe",
    "soc.ssl_certs",
    "soc.events",
    "soc.mail_collector",
    "soc.mail_routes",
    "soc.inventory",
    "soc.logons",
    "soc.cronjobs",
    "soc.oncall",
    "soc.notify",
    "soc.schedules",
    "soc.core",
    "soc.beat",
    "soc.api",
    # Last, because it watches what the pages of all the others change.
    "soc.access",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "soc.access.headers.ContentPolicy",
    "soc.access.headers.HeadersMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "soc.access.sessions.IdleSessionMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "soc.access.audit.AuditMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Also of packages that are no Django application.
        "DIRS": [BASE_DIR / "templates", *sorted(BASE_DIR.glob("*/templates"))],
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [
                        "django.template.loaders.filesystem.Loader",
                        "soc.access.headers.NonceLoader",
                    ],
                )
            ],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "soc.menu.context",
            ],
        },
    },
]

# --- Database --------------------------------------------------------------------------------
if EMBEDDED:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": STATE / "soc.sqlite3",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.mysql",
            "NAME": "soc",
            "HOST": "mariadb",
            # The certificate says who logs in, as at the broker; there is no password.
            "USER": database_user(SERVICE),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {
                "ssl_mode": "VERIFY_IDENTITY",
                "ssl": {
                    "ca": str(IDENTITY / "ca.pem"),
                    "cert": str(IDENTITY / "cert.pem"),
                    "key": str(IDENTITY / "key.pem"),
                },
                "charset": "utf8mb4",
                "isolation_level": "read committed",
                "connect_timeout": 5,
                # A change of a large table takes long, and goes on when its client has left.
                "read_timeout": 3600 if SERVICE == "migrate" else 30,
                "write_timeout": 30,
            },
        }
    }

# --- Time and language -----------------------------------------------------------------------
TIME_ZONE = SITE["SOC_TIME_ZONE"]
USE_TZ = True
LANGUAGE_CODE = "en-gb"
USE_I18N = False
FORMAT_MODULE_PATH = ["soc.formats"]

# --- Static files and security ---------------------------------------------------------------
STATIC_URL = "static/"
STATIC_ROOT = (STATE if EMBEDDED else BASE_DIR.parent) / "static"
STATICFILES_DIRS = [BASE_DIR / "assets"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "board"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{validator}"}
    for validator in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
# Cookies know no ports: two sites on one host would sign each other's people out.
SESSION_COOKIE_NAME = f"__Host-session-{SITE['SOC_SITE']}"
CSRF_COOKIE_NAME = f"__Host-csrf-{SITE['SOC_SITE']}"
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_AGE = int(SITE.get("SOC_SESSION_HOURS") or 12) * 3600
SESSION_IDLE_SECONDS = int(SITE.get("SOC_SESSION_IDLE_MINUTES") or 60) * 60
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_HTTPONLY = True
SECURE_SSL_REDIRECT = True
SECURE_HSTS_SECONDS = int(SITE.get("SOC_HSTS_SECONDS") or 3600)
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
# HSTS for a whole domain, or a browser's preload list, is the domain owner's choice.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# --- Sign-in and the record of it ------------------------------------------------------------
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_HANDLER = "soc.access.throttle.Handler"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "ip_address"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
# Who goes on trying does not wait longer, and costs no row each time.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "soc.access.throttle.locked_out"
# The audit log and our own page of locks take their place.
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AUDIT_DAYS = int(SITE.get("SOC_AUDIT_DAYS") or 400)
# A header that anybody can send is no part of a record.
AUDITLOG_CID_HEADER = None
AUDITLOG_USE_FK_STRING_REPRESENTATION = True

PING_URL = SITE.get("SOC_PING_URL", "")
OIDC_ISSUER = SITE.get("SOC_OIDC_ISSUER", "")
OIDC_CLIENT_ID = SITE.get("SOC_OIDC_CLIENT_ID", "")
OIDC_GROUPS_CLAIM = SITE.get("SOC_OIDC_GROUPS_CLAIM") or "groups"
OIDC_SCOPES = environment.split(SITE.get("SOC_OIDC_SCOPES") or "openid,profile,email")
OIDC_ROLES = environment.roles_by_group(SITE.get("SOC_OIDC_ROLES", ""))
OIDC_CLIENT_SECRET = ""
OIDC_AUTHORITIES = ""
if OIDC_ISSUER and SERVICE == "web":
    OIDC_CLIENT_SECRET = environment.secret_of_site(
        IDENTITY / "oidc_client_secret", "SOC_OIDC_ISSUER is set"
    )
    if (IDENTITY / "oidc_ca.pem").exists():
        OIDC_AUTHORITIES = str(IDENTITY / "oidc_ca.pem")

# --- Mail ------------------------------------------------------------------------------------
MAIL_FROM = SITE["SOC_MAIL_FROM"]
MAIL_FROM_NAME = SITE.get("SOC_MAIL_FROM_NAME", "")
MAIL_TO = environment.split(SITE["SOC_MAIL_TO"])
MAIL_PER_MINUTE = int(SITE.get("SOC_MAIL_PER_MINUTE") or 120)
WEBHOOK_HOSTS = environment.split(SITE.get("SOC_WEBHOOK_HOSTS", ""))
WEBHOOK_NETWORKS = environment.split(SITE.get("SOC_WEBHOOK_NETWORKS", ""))
SMTP_HOST = SITE["SOC_SMTP_HOST"]
SMTP_PORT = int(SITE["SOC_SMTP_PORT"])
SMTP_SECURITY = SITE["SOC_SMTP_SECURITY"]
SMTP_USER = SITE.get("SOC_SMTP_USER", "")
SMTP_OAUTH_URL = SITE.get("SOC_SMTP_OAUTH_URL", "")
SMTP_OAUTH_CLIENT_ID = SITE.get("SOC_SMTP_OAUTH_CLIENT_ID", "")
SMTP_OAUTH_SCOPE = SITE.get("SOC_SMTP_OAUTH_SCOPE", "")
SMTP_HELO = SITE.get("SOC_SMTP_HELO", "")
BOUNCE_IMAP_HOST = SITE.get("SOC_BOUNCE_IMAP_HOST", "")
BOUNCE_IMAP_PORT = int(SITE.get("SOC_BOUNCE_IMAP_PORT") or 993)
BOUNCE_IMAP_USER = SITE.get("SOC_BOUNCE_IMAP_USER", "")

# --- Celery ----------------------------------------------------------------------------------
_exchange = Exchange(TASK_EXCHANGE, type="topic")
CELERY_TASK_QUEUES = [
    KombuQueue(
        queue.name,
        _exchange,
        routing_key=queue.routing_key,
        queue_arguments=None if EMBEDDED else QUORUM,
        # The broker's definitions declare the queues; a worker may not.
        no_declare=not EMBEDDED,
    )
    for queue in TASK_QUEUES
]
CELERY_TASK_ROUTES = ["soc.runtime.celery.route"]
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_DEFAULT_QUEUE = "shared"
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
# Without results there is nothing for Celery's own clean-up schedule to do.
CELERY_RESULT_EXPIRES = None
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_SEND_SENT_EVENT = False
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CONSUMER = "soc.runtime.consumer:Consumer"
CELERY_TIMEZONE = TIME_ZONE
CELERY_DB_REUSE_MAX = 1000
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BEAT_SCHEDULER = "soc.beat.scheduler:Scheduler"
# A network cut must be noticed on both sides before an operator notices it.
CELERY_BROKER_HEARTBEAT = 10
# Durable, not exclusive: RabbitMQ 4.3 refuses queues that are neither, and an exclusive one
# stays locked after a network cut, so that a worker of the same name cannot come back.
CELERY_CONTROL_QUEUE_EXCLUSIVE = False
CELERY_CONTROL_QUEUE_DURABLE = not EMBEDDED
CELERY_CONTROL_QUEUE_EXPIRES = 60.0
if EMBEDDED:
    CELERY_BROKER_URL = "localhost"
    CELERY_BROKER_TRANSPORT = "soc.runtime.file_broker:FileTransport"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(STATE / "broker"),
        "data_folder_out": str(STATE / "broker"),
        "control_folder": str(STATE / "broker-control"),
        # A worker takes at most its prefetch each time it looks; kombu looks once a second.
        "polling_interval": 0.3,
    }
else:
    # The certificate says who logs in; the name in the URL is for people who read logs.
    CELERY_BROKER_URL = f"amqps://{SERVICE}@rabbitmq:5671//"
    CELERY_BROKER_LOGIN_METHOD = "EXTERNAL"
    CELERY_BROKER_TRANSPORT_OPTIONS = {"confirm_publish": True}
    CELERY_BROKER_USE_SSL = {
        "ca_certs": str(IDENTITY / "ca.pem"),
        "certfile": str(IDENTITY / "cert.pem"),
        "keyfile": str(IDENTITY / "key.pem"),
        "cert_reqs": ssl.CERT_REQUIRED,
        # py-amqp compares the broker's name only if this key is there; kombu fills the host in.
        "server_hostname": None,
    }

# --- Beat ------------------------------------------------------------------------------------
# Routing and apply_async of soc.runtime.celery depend on nothing but their arguments.
BEAT = {"PREBUILT": True}

# --- Flower ----------------------------------------------------------------------------------
FLOWER_PORT = int(SITE["SOC_FLOWER_PORT"]) if EMBEDDED else 5555
FLOWER_ADDRESS = SITE["SOC_BIND"] if EMBEDDED else ""
FLOWER_CONTROL = SITE.get("SOC_FLOWER_CONTROL") == "on"

# --- Logging ---------------------------------------------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"},
    },
    "filters": {"addresses": {"()": "soc.common.logs.HideSecrets"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["addresses"],
        }
    },
    "loggers": {
        # At DEBUG it logs the secret of a sign-in that is going on.
        "authlib": {"level": "INFO"},
        # At DEBUG it logs what is said to a server, a login too; at INFO each end of a session.
        "imapclient": {"level": "WARNING"},
        # The audit log says the same in a line instead of four.
        "axes": {"level": "WARNING"},
    },
    "root": {"handlers": ["console"], "level": SITE["SOC_LOG_LEVEL"]},
}

# --- Admin theme -----------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "SOC Automation Server",
    "SITE_HEADER": "SOC Automation",
    "SITE_SYMBOL": "monitoring",
    "SITE_URL": "/",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "soc.menu.icon"}],
    "SCRIPTS": ["soc.menu.script"],
    "STYLES": ["soc.menu.style"],
    "SHOW_HISTORY": True,
    "ENVIRONMENT": "soc.menu.badge",
    "BORDER_RADIUS": "8px",
    "COLORS": {
        # The board's accent, from nearly white to nearly black.
        "primary": {
            "50": "oklch(97% .013 250)",
            "100": "oklch(94% .03 250)",
            "200": "oklch(88% .06 250)",
            "300": "oklch(80% .10 250)",
            "400": "oklch(72% .13 250)",
            "500": "oklch(62% .15 250)",
            "600": "oklch(52% .15 250)",
            "700": "oklch(46% .13 250)",
            "800": "oklch(39% .11 250)",
            "900": "oklch(33% .09 250)",
            "950": "oklch(25% .06 250)",
        },
    },
    "SIDEBAR": {"navigation": "soc.menu.menu"},
}
