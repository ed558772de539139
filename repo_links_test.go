package repo

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// prose is one line of a Markdown page outside its code.
type prose struct {
	n    int
	text string
}

// proseOf leaves out fenced blocks, and code within lines.
func proseOf(page string) []prose {
	var lines []prose
	code := regexp.MustCompile("`[^`]*`")
	fenced := false
	n := 0
	for line := range strings.Lines(page) {
		n++
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		} else if !fenced {
			lines = append(lines, prose{n, line})
		}
	}
	for i, l := range lines {
		if !strings.HasPrefix(l.text, "#") {
			lines[i].text = code.ReplaceAllString(l.text, "")
		}
	}
	return lines
}

// checkLinks follows every link between the pages, down to the heading.
func checkLinks(tr *tree, bad report) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for page, text := range tr.texts {
		if path.Ext(page) != ".md" {
			continue
		}
		for _, l := range proseOf(string(text)) {
			for _, m := range link.FindAllStringSubmatch(l.text, -1) {
				if fault := linkFault(tr, page, m[1]); fault != "" {
					bad(page, l.n, "link %s: %s", m[1], fault)
				}
			}
		}
	}
}

// linkFault says why a link leads nowhere; links out of the repository are not
// followed.
func linkFault(tr *tree, page, link string) string {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return ""
	}
	file, anchor, _ := strings.Cut(link, "#")
	target := page
	if file != "" {
		target = path.Join(path.Dir(page), file)
	}
	if !tr.paths[target] && target != "." {
		return "there is no " + target
	}
	if anchor != "" && !slices.Contains(anchors(string(tr.texts[target])), anchor) {
		return target + " has no such heading"
	}
	return ""
}

// anchors are the headings of a page as links name them.
func anchors(page string) []string {
	var names []string
	for _, l := range proseOf(page) {
		if title := strings.TrimLeft(l.text, "#"); title != l.text {
			names = append(names, strings.Map(func(r rune) rune {
				switch {
				case r == ' ':
					return '-'
				case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
					return unicode.ToLower(r)
				}
				return -1
			}, strings.TrimSpace(title)))
		}
	}
	return names
}

// messagesPage is the page whose headings of the third level are messages.
const messagesPage = "docs/troubleshooting.md"

// checkMessages looks in the source for the messages that a page explains: what
// stands between … and commas.
func checkMessages(tr *tree, bad report) {
	var source strings.Builder
	for _, s := range tr.code {
		if !s.test {
			source.Write(s.text)
		}
	}
	for _, l := range proseOf(string(tr.texts[messagesPage])) {
		message, ok := strings.CutPrefix(l.text, "### ")
		if !ok {
			continue
		}
		for part := range strings.FieldsFuncSeq(message, func(r rune) bool { return r == '…' || r == ',' }) {
			if part = strings.TrimSpace(part); len(part) > 3 && !strings.Contains(source.String(), part) {
				bad(messagesPage, l.n, "nothing says %q", part)
			}
		}
	}
}
