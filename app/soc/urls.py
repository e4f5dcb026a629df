"""The site's addresses."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import path

from soc import board
from soc.core import views

urlpatterns = [
    path("", board.board, name="board"),
    path("board/live/", board.live, name="board-live"),
    path("sign-in/", auth.LoginView.as_view(template_name="sign_in.html"), name="login"),
    path("sign-out/", auth.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz, name="healthz"),
]
