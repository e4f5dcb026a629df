"""Connects to the relay as a delivery does, and says what fails: python3 -m soc.notify.relay_check.

For `make doctor`, in the container of worker-email. It sends no mail.
"""

import json
import os
import smtplib
import socket
import ssl
import time

import django

WITHIN = 7.0
"""Seconds for the connection, TLS and login."""


def problem() -> tuple[str, str]:
    """Return what is wrong with the way to the relay, and what to do; empty texts if nothing."""
    from django.conf import settings

    from soc.notify import smtp

    name = f"the relay {settings.SMTP_HOST}:{settings.SMTP_PORT}"
    try:
        smtp.connect(time.monotonic() + WITHIN).close()
    except smtplib.SMTPAuthenticationError as error:
        return (
            f"{name} refuses the login of {settings.SMTP_USER} ({error.smtp_code})",
            "write the right password into the site's worker-email/smtp_password, then `make up`",
        )
    except smtplib.SMTPNotSupportedError as error:
        return f"{name} does not offer what is asked of it: {error}", "see SOC_SMTP_SECURITY"
    except smtplib.SMTPException as error:
        return f"{name} answers, but cannot be used: {error}", "see SOC_SMTP_HELO, or ask its owner"
    except ssl.SSLError as error:
        return (
            f"no TLS with {name}: {error}",
            "see SOC_SMTP_SECURITY and the port; its certificate must name the host, by a known CA",
        )
    except FileNotFoundError as error:
        return f"{error.filename} is missing, but SOC_SMTP_USER is set", "write the password there"
    except socket.gaierror as error:
        return f"no DNS knows {settings.SMTP_HOST}: {error.strerror}", "see SOC_SMTP_HOST and DNS"
    except OSError as error:
        return (
            f"{name} cannot be reached: {error}",
            "see SOC_SMTP_HOST, SOC_SMTP_PORT and the firewall",
        )
    return "", ""


def main() -> None:
    """Print the problem and what to do as a JSON list."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soc.settings")
    django.setup()
    print(json.dumps(problem()))


if __name__ == "__main__":
    main()
