# The stack without containers: the Makefile includes this where no Docker engine answers.

up:
	@echo "== $(if $(filter command environment,$(origin STACK)),STACK=embedded,no Docker engine answers): the site $(SITE) runs on SQLite and a broker of files, on loopback only, for a look and for development"
	@PYTHON="$(PYTHON)" docker/embedded/stack up "$(SITE)"

site:
	@PYTHON="$(PYTHON)" docker/embedded/stack site "$(SITE)"

down status passwords mail certs rotate:
	@docker/embedded/stack $@ "$(SITE)"

logs:
	@docker/embedded/stack logs "$(SITE)" $(S)

rollback:
	@echo "!! the embedded stack runs the files that are here: \`git checkout\` the version of before, then \`make up\`" >&2; exit 1

shipper:
	@echo "!! the embedded stack has no broker that shippers could reach: run the site in containers" >&2; exit 1

backup restore:
	@echo "!! the embedded stack is for a look: while it is down, copy env/$(SITE).env, env/$(SITE)/ and var/$(SITE)/" >&2; exit 1

join:
	@echo "!! this site runs on one host: STACK=swarm runs it on several, docs/swarm.md" >&2; exit 1

doctor shell:
	@echo "!! make $@ is for the stack in containers; here \`make status\` says what is wrong" >&2; exit 1
