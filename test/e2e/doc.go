// Package e2e runs the behaviour of the command as scripts against a real
// cluster: each testdata/*.txtar is a specification that a reader can follow.
//
// The cluster is the one that KUBECONFIG names, else the one in .cluster at
// the repository's top; without either the scripts are skipped, or fail where
// E2E=required. APP_IMAGE is the sample app's image there.
//
// A script has a namespace of its own and the rights of its edit role, no
// more. Beside testscript's own commands it has these; none waits longer than
// patience, all say in the end what was missing:
//
//	apply FILE…                       objects, with $VARIABLES filled in; workloads among them are ready then
//	deploy [-replicas N] [-linger SECONDS] NAME…   deployment and service of the sample app, port 80 → 8080
//	incluster REQUEST…                what the sample app's command says in a pod beside: incluster get http://web
//	eventually [-stdout RE] COMMAND…  again and again until it succeeds and its output matches
//	start NAME PROGRAM…               a process that goes on; its output is in the files NAME.out and NAME.err
//	terminal NAME ROWSxCOLUMNS PROGRAM…   the same in a terminal, whose output is in NAME.out
//	type NAME TEXT                    into its terminal; \x03 is Ctrl-C
//	resize NAME ROWSxCOLUMNS          its terminal
//	await NAME RE                     until its output matches
//	signal NAME INT|TERM|HUP|KILL     as one who presses Ctrl-C, and so on
//	finish NAME STATUS                until it has ended, with that exit status
//	workload KIND/NAME                the object as its owner wrote it: without status and the server's own fields
//	leftovers                         what carries a session's label; an error where anything does
//	freeport NAME…                    variables with ports of this machine that nobody else takes
//	elsewhere [-tls]                  the docker engine is at a TCP port: DOCKER_HOST's, or with -tls ENGINE's, for those
//	                                  who have the client's ca.pem, cert.pem and key.pem
//	as [-role ROLE] USER              go on as another user with the edit role, or that one
//	line                              what the user does from now on goes to the cluster over a line
//	cut [DURATION]                    the line is cut, for that time or until mend; what goes over it breaks
//	mend                              the line is whole again
//	admin PROGRAM…                    run a program as the cluster's administrator
//
// $LOAD is the option with which imagecache enable loads its image into this cluster.
package e2e
