package main

import "strings"

// line is a command line, cut in two.
type line struct {
	args    []string // all that is not swallowed
	swallow string   // "run" or "docker-run", or empty
	rest    []string // what that option swallowed, to the end of the line
}

// splitLine cuts a command line at --run or --docker-run, which swallow
// everything after them: what looks like an option there is the user's
// command's. An option that lacks its argument is found here too, because the
// next option would be taken for it.
func splitLine(rows []flagRow, args []string) (line, error) {
	for i := 0; i < len(args); i++ {
		name, _, inline := strings.Cut(args[i], "=")
		row, ok := findRow(rows, name)
		switch {
		case args[i] == "--":
			return line{args: args}, nil
		case !ok:
			continue
		case row.swallow:
			return swallow(row, args, i)
		case row.arg == "" || inline:
			continue
		case i+1 == len(args):
			return line{}, usagef("%s needs an argument, %s", name, row.arg)
		}
		next, _, _ := strings.Cut(args[i+1], "=")
		if _, isOption := findRow(rows, next); isOption {
			return line{}, usagef("%s needs an argument, %s, but %s follows", name, row.arg, next)
		}
		i++
	}
	return line{args: args}, nil
}

// swallow cuts at args[i], which is the option row.
func swallow(row flagRow, args []string, i int) (line, error) {
	rest := args[i+1:]
	if _, first, ok := strings.Cut(args[i], "="); ok {
		rest = append([]string{first}, rest...)
	}
	if len(rest) == 0 || rest[0] == "" {
		return line{}, usagef("--%s needs an argument, %s", row.name, row.arg)
	}
	return line{args: args[:i:i], swallow: row.name, rest: rest}, nil
}

// findRow finds the row of an option as it is typed, "--name" or "-n".
func findRow(rows []flagRow, typed string) (flagRow, bool) {
	for _, r := range rows {
		if typed == "--"+r.name || r.short != "" && typed == "-"+r.short {
			return r, true
		}
	}
	return flagRow{}, false
}
