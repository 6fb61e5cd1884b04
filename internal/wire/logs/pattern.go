package logs

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode"
)

// pattern is a filter pattern: CloudWatch Logs User Guide, "Filter pattern syntax for metric filters, subscription filters, filter log events, and
// Live Tail". Patterns of columns, [a, b=…], are refused.
type pattern struct {
	all, any, not []term // of texts
	condition     *condition
}

// term is what a text is to have.
type term struct {
	text string
	re   *regexp.Regexp // or nil
}

func (t *term) in(message string) bool {
	if t.re != nil {
		return t.re.MatchString(message)
	}
	return strings.Contains(message, t.text)
}

func badPattern(format string, args ...any) error {
	return invalid("Invalid filter pattern: "+format, args...)
}

// parsePattern reads one; an empty one takes everything.
func parsePattern(text string) (p pattern, err error) {
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(text, "{"):
		p.condition, err = parseCondition(text)
		return p, err
	case strings.HasPrefix(text, "["):
		return p, badPattern("ebb has no patterns of columns ([a, b=…])")
	}
	for text != "" {
		to := &p.all
		switch text[0] {
		case '?':
			to, text = &p.any, text[1:]
		case '-':
			to, text = &p.not, text[1:]
		}
		var one term
		if one, text, err = readTerm(text); err != nil {
			return p, err
		}
		*to = append(*to, one)
		if text != "" && !strings.HasPrefix(text, " ") && !strings.HasPrefix(text, "\t") {
			return p, badPattern("there is no space before %s", clip(text))
		}
		text = strings.TrimLeft(text, " \t")
	}
	return p, nil
}

// readTerm reads a term at the beginning of a text: "…", %…%, or a word.
func readTerm(text string) (one term, rest string, err error) {
	switch {
	case strings.HasPrefix(text, `"`):
		one.text, rest, err = readQuoted(text)
		return one, rest, err
	case strings.HasPrefix(text, "%"):
		one.re, rest, err = readRegexp(text)
		return one, rest, err
	}
	end := strings.IndexFunc(text, func(r rune) bool { return !isWord(r) })
	if end < 0 {
		end = len(text)
	}
	if end == 0 || end < len(text) && text[end] != ' ' && text[end] != '\t' {
		word, _, _ := strings.Cut(text, " ")
		return one, "", badPattern("invalid character(s) in term '%s': what is no letter, digit or underscore stands in double quotes", clip(word))
	}
	return term{text: text[:end]}, text[end:], nil
}

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// readQuoted reads a text in double quotes, in which \" is a quote and \\ a backslash.
func readQuoted(text string) (value, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], nil
		case c == '\\' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", badPattern("a quote is not closed: %s", clip(text))
}

func readRegexp(text string) (re *regexp.Regexp, rest string, err error) {
	body, rest, ok := strings.Cut(text[1:], "%")
	if !ok {
		return nil, "", badPattern("a %% is not closed: %s", clip(text))
	}
	if re, err = regexp.Compile(body); err != nil || body == "" {
		return nil, "", badPattern("%s is no regular expression", clip(body))
	}
	return re, rest, nil
}

func clip(text string) string {
	if len(text) <= 60 {
		return text
	}
	return strings.ToValidUTF8(text[:60], "") + "…"
}

// matches says whether a message is taken. ?terms count for nothing beside others, as on AWS.
func (p *pattern) matches(message string) bool {
	if p.condition != nil {
		d := json.NewDecoder(strings.NewReader(message))
		d.UseNumber()
		var v map[string]any
		return d.Decode(&v) == nil && v != nil && !d.More() && p.condition.holds(v)
	}
	for i := range p.not {
		if p.not[i].in(message) {
			return false
		}
	}
	for i := range p.all {
		if !p.all[i].in(message) {
			return false
		}
	}
	if len(p.any) == 0 || len(p.all)+len(p.not) > 0 {
		return true
	}
	for i := range p.any {
		if p.any[i].in(message) {
			return true
		}
	}
	return false
}
