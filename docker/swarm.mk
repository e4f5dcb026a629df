# The stack on a Docker Swarm: `make up STACK=swarm` on a manager includes this.

up:
	@docker/swarm/stack up "$(SITE)"

down join status certs:
	@docker/swarm/stack $@ "$(SITE)"

logs:
	@docker/swarm/stack logs "$(SITE)" $(S)

site passwords:
	@docker/containers/stack $@ "$(SITE)"

rotate shipper doctor backup restore rollback mail shell:
	@echo "!! make $@ works on one host only, not on a swarm yet: docs/swarm.md" >&2; exit 1
