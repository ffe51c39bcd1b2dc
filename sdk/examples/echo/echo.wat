;; Plugin `echo` 1.0.0: the smallest module the kernel takes, written by hand, for those who write in a language without
;; an SDK. Whatever compiler you use, its module needs the same: one memory, three functions, one custom section.
;;
;; Method 1, `echo`: the same bytes. Method 2, `reverse`: the same bytes, last first.
;;
;; Build it with an assembler that writes what (@custom) says, for example: wasm-tools parse echo.wat -o echo.wasm
;; (wabt's wat2wasm 1.0 leaves it out.)
(module
  ;; Who this is. Name, version and ABI have to be those of the manifest.
  (@custom "themis" "{\"name\":\"echo\",\"version\":\"1.0.0\",\"abi\":\"1.0\"}")

  ;; Appends bytes of this memory to the reply. It is granted to every module; an import that the manifest has no
  ;; capability for (`log`, `now_ns`, `counter_add`, `resource_read`) has the module refused.
  (import "themis" "reply" (func $reply (param $bytes i32) (param $len i32)))

  ;; One page of 64 KiB; it grows with the requests.
  (memory (export "memory") 1)

  ;; Where the next buffer begins. Not at 0: that means that there is no room.
  (global $next (mut i32) (i32.const 16))

  ;; Makes room for `len` bytes that the kernel is about to write: the configuration, or a request. 0 = there is none.
  ;; Addresses and lengths are unsigned; in 64 bits their sum cannot overflow.
  (func (export "themis_alloc") (param $len i32) (result i32)
    (local $start i32) (local $end i64) (local $there i64)
    (local.set $start (global.get $next))
    (local.set $end
      (i64.add (i64.extend_i32_u (local.get $start)) (i64.extend_i32_u (local.get $len))))
    (if (i64.gt_u (local.get $end) (i64.const 0xffffffff)) (then (return (i32.const 0))))
    (local.set $there (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))
    (if (i64.gt_u (local.get $end) (local.get $there))
      (then
        ;; So many pages more, rounded up. -1 = the kernel gives no more.
        (if (i32.eq (i32.const -1)
              (memory.grow
                (i32.wrap_i64
                  (i64.shr_u
                    (i64.add (i64.sub (local.get $end) (local.get $there)) (i64.const 65535))
                    (i64.const 16)))))
          (then (return (i32.const 0))))))
    (global.set $next (i32.wrap_i64 (local.get $end)))
    (local.get $start))

  ;; What the kernel passed is ours from then on. Nothing is kept between calls, so all of it is given back at once.
  (func $give_back
    (global.set $next (i32.const 16)))

  ;; Starts an instance with its configuration, a JSON object. 0 = it is ready; 1 = it is not, and the reply says why.
  (func (export "themis_init") (param $config i32) (param $len i32) (result i32)
    (call $give_back)
    (i32.const 0))

  ;; Answers one call: 0 = the reply is the answer, 1 = the plugin's own error, 2 = no such method, 3 = a bad request.
  (func (export "themis_call") (param $method i32) (param $request i32) (param $len i32) (result i32)
    (call $give_back)
    (if (i32.gt_u (i32.sub (local.get $method) (i32.const 1)) (i32.const 1))
      (then (return (i32.const 2))))
    (if (i32.eq (local.get $method) (i32.const 2))
      (then (call $reverse (local.get $request) (local.get $len))))
    (call $reply (local.get $request) (local.get $len))
    (i32.const 0))

  ;; Swaps the first byte with the last, and so on until they meet.
  (func $reverse (param $first i32) (param $len i32)
    (local $end i32) (local $byte i32)
    (local.set $end (i32.add (local.get $first) (local.get $len)))
    (loop $next_pair
      (if (i32.lt_u (i32.add (local.get $first) (i32.const 1)) (local.get $end))
        (then
          (local.set $end (i32.sub (local.get $end) (i32.const 1)))
          (local.set $byte (i32.load8_u (local.get $first)))
          (i32.store8 (local.get $first) (i32.load8_u (local.get $end)))
          (i32.store8 (local.get $end) (local.get $byte))
          (local.set $first (i32.add (local.get $first) (i32.const 1)))
          (br $next_pair)))))

  ;; Optional, and not here: `themis_health`, `themis_shutdown` and `themis_save_state`, which take nothing;
  ;; `themis_reload`, which takes a version and a state, each as address and length; `_initialize`, for what a compiler
  ;; has to set up. All but the last answer a code like themis_call's.
)
