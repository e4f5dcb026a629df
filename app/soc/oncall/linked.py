"""The page of rotas, which reports link to."""

LINKED = {"oncall": "oncall/"}
