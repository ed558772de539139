package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watchTerminal prints what happens to the terminal, until a signal ends it.
func watchTerminal() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	tty, err := os.Open("/dev/tty") // unlike of standard input, reading of it ends when it is closed
	if err != nil {
		return err
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer tty.Close()
	reading.Go(func() {
		for lines := bufio.NewScanner(tty); lines.Scan(); {
			fmt.Println("typed", lines.Text())
		}
	})
	for {
		size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
		if err != nil {
			return fmt.Errorf("asking for the terminal's size: %w", err)
		}
		fmt.Printf("size %dx%d\n", size.Row, size.Col)
		if sig := <-signals; sig != syscall.SIGWINCH {
			fmt.Println("signal", sig)
			return exitStatus(3)
		}
	}
}
