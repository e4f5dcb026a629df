# The stack in containers: the Makefile includes this where a Docker engine answers.

up:
	@echo "== a Docker engine answers: the site $(SITE) runs in containers"
	@docker/containers/stack up "$(SITE)"

site passwords certs rotate shipper status doctor backup restore rollback:
	@docker/containers/stack $@ "$(SITE)"

COMPOSE = docker/containers/stack compose "$(SITE)"

down:
	@$(COMPOSE) down

logs:
	@$(COMPOSE) logs $(if $(SINCE),--since $(SINCE),--follow --tail 100) $(S)

shell:
	@$(COMPOSE) exec web python3 manage.py shell

mail:
	@$(COMPOSE) exec -T catcher python3 -m soc.notify.catcher show

join:
	@echo "!! this site runs on one host: STACK=swarm runs it on several, docs/swarm.md" >&2; exit 1
