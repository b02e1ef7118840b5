//! The last resort: a server in a container.

use crate::Missing;

/// A server in a container, gone with this value.
#[derive(Debug)]
pub(crate) struct Container {
    #[cfg(feature = "container")]
    inner: Option<testcontainers::Container<testcontainers::GenericImage>>,
    /// The port of 127.0.0.1 that leads to the server.
    pub(crate) port: u16,
}

#[cfg(feature = "container")]
impl Container {
    /// Runs an image with this command; it is ready once it prints `ready`.
    pub(crate) fn run(
        (image, tag): (&str, &str),
        port: u16,
        command: &[&str],
        ready: &str,
    ) -> Result<Self, Missing> {
        use testcontainers::core::{IntoContainerPort, WaitFor};
        use testcontainers::runners::SyncRunner;
        use testcontainers::{GenericImage, ImageExt};

        let request = GenericImage::new(image, tag)
            .with_exposed_port(port.tcp())
            .with_wait_for(WaitFor::message_on_stdout(ready))
            .with_cmd(command.iter().copied());
        // In a thread of its own, so that it can be called from inside a runtime.
        let work = move || -> Result<Self, testcontainers::TestcontainersError> {
            let container = request.start()?;
            let port = container.get_host_port_ipv4(port)?;
            Ok(Self { inner: Some(container), port })
        };
        let why = |why: String| {
            let tried = format!("no container of {image}:{tag}: {why}");
            Missing::new(vec![tried], "a running Docker would do too")
        };
        match std::thread::spawn(work).join() {
            Ok(outcome) => outcome.map_err(|error| why(error.to_string())),
            Err(_) => Err(why("starting it panicked".into())),
        }
    }
}

#[cfg(feature = "container")]
impl Drop for Container {
    fn drop(&mut self) {
        let inner = self.inner.take();
        let _ = std::thread::spawn(move || drop(inner)).join();
    }
}

#[cfg(not(feature = "container"))]
impl Container {
    /// Says that this was not built to run containers.
    pub(crate) fn run((image, tag): (&str, &str), _: u16, _: &[&str], _: &str) -> Result<Self, Missing> {
        let tried = format!("no container of {image}:{tag}: built without the feature `container`");
        Err(Missing::new(vec![tried], "with that feature, Docker would do too"))
    }
}
