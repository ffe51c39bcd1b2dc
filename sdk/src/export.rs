//! The macro that makes a plugin library of a type.

/// Exports a [`Plugin`](crate::Plugin) as the library's one plugin.
///
/// ```text
/// themis_plugin::export! {
///     plugin: Type,            // implements Plugin
///     name: "geo",             // as in the manifest: [a-z][a-z0-9_-]{0,62}
///     version: "1.0.0",        // as in the manifest: at most 31 bytes
///     thread_safe: true,       // true: Type is Sync, calls overlap; false: one call at a time
///     stateful: true,          // optional: Type implements Stateful
///     methods: {
///         1 => distance_km,    // fn(&self, A) -> Result<R, Error>, MessagePack both ways
///         2 => raw echo,       // fn(&self, &[u8]) -> Result<Vec<u8>, Error>
///     }
/// }
/// ```
///
/// Name and version are checked when the plugin is compiled, and so are doubled method numbers:
///
/// ```compile_fail
/// struct P;
/// impl themis_plugin::Plugin for P {
///     fn init(_: themis_plugin::Host, _: themis_plugin::Config) -> Result<Self, themis_plugin::Error> { Ok(P) }
/// }
/// themis_plugin::export! { plugin: P, name: "Not A Name", version: "1.0.0", thread_safe: true, methods: {} }
/// fn main() {}
/// ```
#[macro_export]
macro_rules! export {
    (
        plugin: $plugin:ty, name: $name:expr, version: $version:expr,
        thread_safe: $thread_safe:tt, $(stateful: $stateful:tt,)?
        methods: { $($methods:tt)* } $(,)?
    ) => {
        $crate::__implement! {
            plugin: $plugin, name: $name, version: $version,
            thread_safe: $thread_safe, $(stateful: $stateful,)?
            methods: { $($methods)* }
        }

        $crate::__entries! { $plugin $(, $stateful)? }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __implement {
    (
        plugin: $plugin:ty, name: $name:expr, version: $version:expr,
        thread_safe: $thread_safe:tt, $(stateful: $stateful:tt,)?
        methods: { $($id:literal => $first:ident $($second:ident)?),* $(,)? } $(,)?
    ) => {
        impl $crate::runtime::Exported for $plugin {
            const NAME: &'static str = $name;
            const VERSION: &'static str = $version;
            const FEATURES: u64 = $crate::__thread_safe!($thread_safe);
            type Slot = $crate::__slot!($thread_safe);
            $($crate::__stateful! { $stateful })?

            #[deny(unreachable_patterns)] // two methods with one number
            fn dispatch(
                &self,
                method: u32,
                request: &[u8],
            ) -> Result<Vec<u8>, $crate::runtime::Refusal> {
                // Both are unused when there is no method.
                let _ = request;
                match method {
                    $($id => $crate::__method!(self, request, $first $($second)?)
                        .map_err($crate::runtime::Refusal::Error),)*
                    _ => Err($crate::runtime::Refusal::UnknownMethod),
                }
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __method {
    ($plugin:expr, $request:expr, raw $method:ident) => {
        Self::$method($plugin, $request)
    };
    ($plugin:expr, $request:expr, $method:ident) => {
        $crate::runtime::typed($request, |arguments| Self::$method($plugin, arguments))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __thread_safe {
    (true) => {
        $crate::abi::THREAD_SAFE
    };
    (false) => {
        0
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __slot {
    (true) => { $crate::runtime::Parallel<Self> };
    (false) => { $crate::runtime::Serial<Self> };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __stateful {
    (true) => {
        const STATE: Option<$crate::runtime::State<Self>> = Some($crate::runtime::State::hooks());
    };
    (false) => {};
}
