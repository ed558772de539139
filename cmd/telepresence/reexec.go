package main

// reexecRole is the name under which the program started itself, or empty: the
// first argument, where it is one that no user types.
func reexecRole(argv []string) string {
	if len(argv) < 2 {
		return ""
	}
	return argv[1]
}

// roles says what the program is when it starts itself. This is looked at
// before anything else: a role gets the raw arguments and returns the exit
// code.
func roles() map[string]func(argv []string) int {
	return map[string]func(argv []string) int{}
}
