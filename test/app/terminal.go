package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// watchTerminal prints what happens to the terminal, until a signal ends it.
func watchTerminal() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	typed := make(chan string)
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			typed <- lines.Text()
		}
	}()
	for {
		columns, rows, err := term.GetSize(int(os.Stdin.Fd()))
		if err != nil {
			return fmt.Errorf("asking for the terminal's size: %w", err)
		}
		fmt.Printf("size %dx%d\n", rows, columns)
		select {
		case text := <-typed:
			fmt.Println("typed", text)
		case sig := <-signals:
			if sig != syscall.SIGWINCH {
				fmt.Println("signal", sig)
				return exitStatus(3)
			}
		}
	}
}
