package main

import "golang.org/x/sys/unix"

// getTermios is the request for a terminal's mode.
const getTermios = unix.TCGETS
