package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// The kinds of frames that a Node.js or Python guest and its host exchange; a frame is length (uint32, little endian), kind, flags,
// call (uint16), then length bytes.
const (
	frameHead  = 1
	frameEnd   = 3
	frameReady = 4
	frameSize  = 8
)

// frameLine is the line to a guest under one of ebb's bootstraps.
type frameLine struct {
	conn net.Conn
	out  []byte // a whole Invocation, of which only the call changes
	in   []byte
	call uint16
}

func startFrames(kind, code, boot, program string) (*guest, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	var cmd *exec.Cmd
	if kind == "node" {
		cmd = exec.Command(program, "--max-http-header-size=81920", "--max-old-space-size=115", filepath.Join(boot, "node.cjs"), "")
	} else {
		cmd = exec.Command(program, filepath.Join(boot, "python.py"), "")
	}
	cmd.Dir = code
	cmd.Env = []string{
		"AWS_REGION=us-east-1", "AWS_LAMBDA_FUNCTION_NAME=bench-dev-hello", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128", "AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/bench-dev-hello",
		"AWS_LAMBDA_LOG_STREAM_NAME=bench", "LAMBDA_TASK_ROOT=" + code, "LAMBDA_RUNTIME_DIR=" + boot, "_HANDLER=handler.hello",
		"NODE_PATH=" + code, "LANG=en_US.UTF-8", "TZ=:UTC", "PATH=" + filepath.Dir(program) + ":/usr/bin:/bin",
	}
	cmd.ExtraFiles = []*os.File{theirs}
	if err := start(cmd); err != nil {
		return nil, err
	}
	l := &frameLine{conn: conn, in: make([]byte, 16<<10)}
	n, err := conn.Read(l.in)
	if err != nil || n < frameSize || l.in[4] != frameReady {
		return nil, fmt.Errorf("wait for the guest's init: %d bytes, %q: %w", n, l.in[:n], err)
	}
	l.out = appendFrame(l.out, frameHead, []byte(requestID+"\n"+deadline+"\n"+arn+"\n"+traceID+"\n"))
	l.out = appendFrame(l.out, frameEnd, event)
	return &guest{line: l}, nil
}

func appendFrame(dst []byte, kind byte, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	dst = append(dst, kind, 0, 0, 0)
	return append(dst, body...)
}

func (l *frameLine) invoke() ([]byte, error) {
	l.call++
	second := frameSize + int(binary.LittleEndian.Uint32(l.out))
	binary.LittleEndian.PutUint16(l.out[6:], l.call)
	binary.LittleEndian.PutUint16(l.out[second+6:], l.call)
	if _, err := l.conn.Write(l.out); err != nil {
		return nil, err
	}
	have := 0
	for {
		n, err := l.conn.Read(l.in[have:])
		if err != nil {
			return nil, noEOF(err)
		}
		have += n
		at := 0
		for have-at >= frameSize {
			size := int(binary.LittleEndian.Uint32(l.in[at:]))
			if have-at < frameSize+size {
				break
			}
			kind, body := l.in[at+4], l.in[at+frameSize:at+frameSize+size]
			at += frameSize + size
			switch {
			case kind == frameHead && len(body) == 1 && body[0] == 'r':
			case kind == frameEnd:
				return body, nil
			default:
				return nil, fmt.Errorf("a frame of kind %d: %q", kind, body)
			}
		}
		if have == len(l.in) {
			return nil, errors.New("the answer is too long")
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
