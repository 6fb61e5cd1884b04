package server

// Mounts says whether Sandboxes here have files of their own.
func (s *Server) Mounts() bool { return s.driver.Traits().Mounts }
