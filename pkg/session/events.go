package session

// Events is what a session tells whoever shows it. Lines come without a
// prefix, a capital or a full stop. Its methods may be called from several
// goroutines at once.
type Events interface {
	// Tell shows a line that stays.
	Tell(line string)
	// Waiting shows what the session waits for now; the next call, of any
	// method, replaces it where the output is a terminal. Empty, it only takes
	// away what is shown, before the user's process has the terminal.
	Waiting(line string)
	// Warn shows a line about something that is not as the user wants it,
	// and with which the session goes on.
	Warn(line string)
}
