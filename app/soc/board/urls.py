"""The board's addresses."""

from django.urls import path

from soc.board import views

urlpatterns = [
    path("", views.board, name="board"),
    path("board/live/", views.live, name="board-live"),
]
